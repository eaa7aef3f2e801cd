//! Computed fields of returned offers, evaluated for this customer.

use std::sync::Arc;

use crate::decide::case::Case;
use crate::decide::decision::PROPERTIES;
use crate::decide::qualify::Track;
use crate::snapshot::world::OfferWorld;
use crate::value::Value;

/// The computed fields of the offer at `global` that the flow asks for, by their index in the category's schema, and the
/// properties that the flow sets.
pub(crate) fn compute(case: &Case<'_>, track: &Track<'_>, global: u32) -> Vec<(u16, Value)> {
    let numbers = case.category(global).and_then(|category| case.shared.computed_of.get(&category));
    let properties = &track.flow.properties;
    if numbers.is_none() && properties.is_empty() {
        return Vec::new();
    }
    let (part, position) = case.locate(global);
    let at = OfferWorld::new(&track.world, case.shared, &part.segment, position);
    let wanted = &track.flow.computed;
    let asked = numbers.into_iter().flatten().map(|number| (*number, &case.shared.computed[*number as usize]));
    let mut computed: Vec<(u16, Value)> = asked
        .filter(|(_, field)| wanted.is_empty() || wanted.contains(&field.name))
        .map(|(number, field)| (field.index, at.computed(number)))
        .collect();
    if !properties.is_empty() {
        let members = properties.iter().map(|(name, program)| (Arc::clone(name), program.eval(&at)));
        computed.push((PROPERTIES, Value::Map(Arc::new(members.collect()))));
    }
    computed
}
