//! A short soak; `make soak` is the long one.

use ringlet_tests::{Soak, soak};

#[test]
fn what_is_started_and_ended_leaves_nothing() {
    let plan = Soak {
        count: 100,
        at_once: 20,
        seed: 20_261_130,
    };
    let tally = soak(plan).unwrap();
    assert_eq!(tally.ended + tally.signalled, plan.count);
    assert!(tally.signalled >= plan.count / 5, "{tally:?}");
}
