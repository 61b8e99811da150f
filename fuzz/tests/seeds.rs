//! Every seed through its target: what a fuzzer starts from must not fail, on stable and without one.

use std::panic::catch_unwind;

#[test]
fn no_seed_fails() {
    for (target, run) in spop_fuzz::TARGETS {
        let seeds = spop_fuzz::seeds::of(target).expect("the captures are there");
        assert!(seeds.len() > 100, "{target} has {} seeds", seeds.len());
        for (name, bytes) in seeds {
            assert!(catch_unwind(|| run(&bytes)).is_ok(), "{target} fails with {name}");
        }
    }
}
