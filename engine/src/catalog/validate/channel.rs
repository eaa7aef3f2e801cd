//! Channels.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, stored_in};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::keys::ChannelKey;
use crate::model::channel::Channel;
use crate::value::Value;

impl Authored for Channel {
    stored_in!(channels: ChannelKey, EntityKind::Channel, at most 1_000);
    const UNIQUE_NAME: bool = true;

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-"))])
    }

    fn check(&mut self, _context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_name("channelType", &self.channel_type, faults);
        text::check_reservation_seconds(self.reservation_seconds, faults);
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: ChannelKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}
