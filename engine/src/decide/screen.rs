//! Screening: offers that fail a filter of the flow or a hard guardrail of the tenant. Where there are none it costs nothing.

use crate::decide::case::Case;
use crate::decide::decision::RemovalReason;
use crate::decide::qualify::Track;
use crate::snapshot::bitset;
use crate::snapshot::flows::Flow;
use crate::snapshot::screens::{Screen, Test};
use crate::snapshot::world::OfferWorld;

/// Adds to what fails what request and stored fields alone make fail, and finds the tests that must be evaluated per offer.
pub(crate) fn screen(case: &Case<'_>, track: &mut Track<'_>) {
    for screen in screens(case, track.flow) {
        let test = &case.shared.parts.tests.values()[screen.test];
        if !test.looks_at_offers() {
            if !test.holds_for_all(&track.world) {
                track.fail.fill(u64::MAX);
            }
            continue;
        }
        let mut is_late = false;
        for part in &case.snapshot.parts {
            let Some(column) = &part.segment.tests[screen.test] else { continue };
            if let Some(failing) = &column.failing {
                bitset::or(&mut track.fail[part.range()], &failing.0);
            }
            is_late |= column.late.is_some();
        }
        if is_late {
            track.late_tests.push(screen.test);
        }
    }
}

/// Clears from `left` what fails a test that is evaluated offer by offer.
pub(crate) fn screen_late(case: &Case<'_>, track: &Track<'_>, left: &mut [u64]) {
    for number in &track.late_tests {
        let test = &case.shared.parts.tests.values()[*number];
        for part in &case.snapshot.parts {
            let column = part.segment.tests[*number].as_ref();
            let Some(late) = column.and_then(|column| column.late.as_ref()) else { continue };
            for (word, late) in part.range().zip(&late.0) {
                for global in bitset::ones_of(left[word] & late, word as u32 * 64) {
                    if !holds(case, track, test, global) {
                        bitset::clear(left, global);
                    }
                }
            }
        }
    }
}

/// The first filter or guardrail that the offer at `global` fails.
pub(crate) fn failing(case: &Case<'_>, track: &Track<'_>, global: u32) -> Option<RemovalReason> {
    let fails = screens(case, track.flow).find(|screen| {
        let test = &case.shared.parts.tests.values()[screen.test];
        !holds(case, track, test, global)
    })?;
    Some(fails.reason)
}

fn screens<'s>(case: &Case<'s>, flow: &'s Flow) -> impl Iterator<Item = &'s Screen> {
    flow.screens.iter().chain(&case.shared.guardrails.hard)
}

fn holds(case: &Case<'_>, track: &Track<'_>, test: &Test, global: u32) -> bool {
    let (part, position) = case.locate(global);
    test.holds(&OfferWorld::new(&track.world, case.shared, &part.segment, position))
}
