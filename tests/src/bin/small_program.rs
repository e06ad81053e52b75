//! The [small program](freestone_tests::run_small_program) on Freestone.

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    freestone_tests::run_small_program();
}
