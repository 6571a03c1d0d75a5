//! The heap memory that listed keys need, compared with its budget.

use testkit::budgets::{HEAP_OF_A_KEY, is_within};
use testkit::devid::{Bench, Kind, Own, copy_key};
use testkit::host::host;
use testkit::link::Link;
use testkit::programs::run;

once!(a_key_needs_little_of_the_heap);

fn a_key_needs_little_of_the_heap() {
    const MORE: usize = 1000;
    let bench = Bench::new(Link::Ours);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "original").unwrap();
    own.raw.finalize().unwrap();
    let listed = || {
        let said = run(&mut host(&bench.home, "heap", &["1"])).ok().text();
        let (objects, bytes) = said.trim().split_once(' ').expect("two numbers");
        let numbers = [objects, bytes].map(|number| number.parse::<u64>().expect("a number"));
        (numbers[0], numbers[1])
    };
    let (objects, one) = listed();
    copy_key(&bench.folder(), "original", 0..MORE);
    let (more_objects, all) = listed();
    assert_eq!(more_objects - objects, 2 * MORE as u64, "pairs");
    is_within(
        "heap of a key pair",
        (all - one) / MORE as u64,
        HEAP_OF_A_KEY,
    );
}
