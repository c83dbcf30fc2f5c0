//! How often a message asks for memory on its way.

use benches::Scenario;
use pythia_core::EntryFields;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Of the memory's three, two are its publishing and one the text of the decoded order. In one test: all threads of this process are counted together.
#[test]
fn a_message_allocates_little() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for (scenario, budget) in [(Scenario::Dispatch, 0.2), (Scenario::Memory, 3.5)] {
        let (few, many) = (allocations(scenario, 5_000), allocations(scenario, 15_000));
        let each = (many - few) as f64 / 10_000.0;
        eprintln!("{}: {each:.3} a message", scenario.name());
        assert!(each <= budget, "{scenario:?}: {each:.3}, budget {budget}");
    }
    // A stream's entry of one field, as most are.
    let before = dhat::HeapStats::get().total_blocks;
    let fields = EntryFields::from([("data", "{}")]);
    assert_eq!(fields.into_iter().count(), 1);
    assert_eq!(dhat::HeapStats::get().total_blocks, before);
}

fn allocations(scenario: Scenario, messages: u64) -> u64 {
    let before = dhat::HeapStats::get().total_blocks;
    scenario.run(messages, 256).expect("it runs");
    dhat::HeapStats::get().total_blocks - before
}
