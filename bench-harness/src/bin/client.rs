//! The client of the services; see `workload/service`. It has the system's allocator, whoever it talks to.

use std::process::ExitCode;

fn main() -> ExitCode {
    freestone_bench::workload::service::client::main()
}
