//! The [small program](freestone_tests::run_small_program) on the system's allocator.

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() {
    freestone_tests::run_small_program();
}
