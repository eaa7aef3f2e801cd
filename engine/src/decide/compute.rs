//! Computed fields of returned offers, evaluated for this customer.

use crate::decide::case::Case;
use crate::decide::qualify::Track;
use crate::snapshot::world::OfferWorld;
use crate::value::Value;

/// The computed fields of the offer at `global` that the flow asks for, by their index in the category's schema.
pub(crate) fn compute(case: &Case<'_>, track: &Track<'_>, global: u32) -> Vec<(u16, Value)> {
    let Some(numbers) = case.category(global).and_then(|category| case.shared.computed_of.get(&category)) else {
        return Vec::new();
    };
    let (part, position) = case.locate(global);
    let at = OfferWorld::new(&track.world, case.shared, &part.segment, position);
    let wanted = &track.flow.computed;
    let asked = numbers.iter().map(|number| (*number, &case.shared.computed[*number as usize]));
    asked
        .filter(|(_, field)| wanted.is_empty() || wanted.contains(&field.name))
        .map(|(number, field)| (field.index, at.computed(number)))
        .collect()
}
