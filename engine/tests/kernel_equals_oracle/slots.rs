//! Slots that share offers, with answers worked out by hand.

use proffer_engine::catalog::EntityKind;
use proffer_engine::decide::decision::RemovalReason;
use proffer_engine::model::flow::Arbitration;
use proffer_engine::value::Value;

use super::scene::{Scene, number, text};
use super::*;

/// Placements top and side; each offer with its priority and the weights of its creatives there, none where it has none.
fn scene(offers: &[(&str, f64, [Option<f64>; 2])]) -> Scene {
    let mut scene = Scene::new();
    for (offer, priority, weights) in offers {
        scene.offer(offer, &[("priority", number(*priority))]);
        for (placement, weight) in ["top", "side"].into_iter().zip(weights) {
            let Some(weight) = weight else { continue };
            let id = format!("{offer}_{placement}");
            let members = [
                ("name", text(&id)),
                ("offerId", text(offer)),
                ("channelId", text("web")),
                ("placementId", text(placement)),
                ("status", text("active")),
                ("weight", number(*weight)),
            ];
            scene.create(EntityKind::Creative, &id, &members);
        }
    }
    scene
}

fn optimal(scene: &Scene, placements: &[u32]) -> Request {
    Request { arbitration: Some(Arbitration::Optimal), ..scene.placed(placements) }
}

#[test]
fn the_sum_of_scores_is_largest_and_not_the_first_slots_score() {
    let full = Some(100.0);
    let scene = scene(&[("a", 80.0, [full, full]), ("b", 70.0, [full, Some(10.0)])]);
    assert_eq!(scene.proposed(&scene.placed(&[0, 1])), ["a", "b"]);
    assert_eq!(scene.proposed(&optimal(&scene, &[0, 1])), ["b", "a"]);
    let one = Request { limit: Some(1), ..optimal(&scene, &[1, 0]) };
    assert_eq!(scene.proposed(&one), ["a"]);
}

#[test]
fn a_slot_that_only_another_slots_best_could_fill_stays_empty_if_that_costs() {
    let scene = scene(&[("a", 80.0, [Some(100.0), Some(20.0)]), ("b", 10.0, [Some(100.0), None])]);
    // a at the top: .8; a at the side and b at the top: .16 + .1.
    let decision = scene.decide(&optimal(&scene, &[0, 1]));
    assert_eq!(decision.slots.iter().map(|slot| slot.count).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn what_a_policy_bars_among_the_chosen_is_given_up_and_the_place_filled_with_the_next() {
    let full = Some(100.0);
    let mut scene =
        scene(&[("a", 90.0, [None, Some(95.0)]), ("b", 80.0, [full, Some(50.0)]), ("c", 30.0, [full, full])]);
    let exclusive = [("offerIds", Value::list([text("a"), text("b")])), ("lookbackDays", number(1.0))];
    scene.policy("m", "mutual_exclusion", &exclusive);
    let request = optimal(&scene, &[0, 1]);
    // b at the top and a at the side (.8 + .855) is best, but a may not stand beside b.
    assert_eq!(scene.proposed(&request), ["b", "c"]);
    assert!(matches!(scene.why(&request, "a"), Some(RemovalReason::Policy(_))));
}

#[test]
fn duplicates_leave_each_slot_its_best_within_the_common_limit() {
    let scene = scene(&[("a", 80.0, [Some(100.0), Some(50.0)]), ("b", 60.0, [Some(10.0), Some(100.0)])]);
    let twice = Request { duplicates: Duplicates::Anywhere, ..optimal(&scene, &[0, 1]) };
    assert_eq!(scene.proposed(&twice), ["a", "b"]);
    let once = Request { limit: Some(1), ..twice };
    assert_eq!(scene.proposed(&once), ["a"]);
}

#[test]
fn duplicates_within_a_placement_stay_out_of_others() {
    let scene = scene(&[("a", 80.0, [Some(100.0), Some(100.0)]), ("b", 60.0, [Some(100.0), Some(100.0)])]);
    for arbitration in [Arbitration::Greedy, Arbitration::Optimal] {
        let within = Request {
            duplicates: Duplicates::WithinPlacement,
            arbitration: Some(arbitration),
            ..scene.placed(&[0, 0, 1])
        };
        assert_eq!(scene.proposed(&within), ["a", "a", "b"], "{arbitration:?}");
    }
}
