//! No subject: every peer that this build has is linked, and none is registered. Tests start it under the name of a subject, and see its proof
//! refuse it: a benchmark that measures the C library's allocator under another's name is what proofs are for.

#[path = "../peers/freestone.rs"]
mod freestone;
#[cfg(feature = "jemalloc")]
#[path = "../peers/jemalloc.rs"]
mod jemalloc;
#[cfg(feature = "mimalloc")]
#[path = "../peers/mimalloc.rs"]
mod mimalloc;
#[cfg(feature = "rpmalloc")]
#[path = "../peers/rpmalloc.rs"]
mod rpmalloc;
#[cfg(feature = "rusty-alloc")]
#[path = "../peers/rusty_alloc.rs"]
mod rusty_alloc;
#[cfg(feature = "snmalloc")]
#[path = "../peers/snmalloc.rs"]
mod snmalloc;
#[cfg(feature = "stoolap-jemalloc")]
#[path = "../peers/stoolap_jemalloc.rs"]
mod stoolap_jemalloc;
#[cfg(feature = "tcmalloc")]
#[path = "../peers/tcmalloc.rs"]
mod tcmalloc;

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::process::ExitCode;

use freestone_bench::controls::Controls;

type Proof = fn() -> Result<String, String>;

fn proof_of(subject: &str) -> Option<Proof> {
    Some(match subject {
        "freestone" => freestone::proof,
        "freestone-checked" => freestone::proof_of_checked,
        #[cfg(feature = "jemalloc")]
        "jemalloc" => jemalloc::proof,
        #[cfg(feature = "jemalloc-stats")]
        "jemalloc-stats" => jemalloc::books::proof,
        #[cfg(feature = "mimalloc")]
        "mimalloc" => mimalloc::proof_of_v3,
        #[cfg(feature = "mimalloc")]
        "mimalloc-v2" => mimalloc::proof_of_v2,
        #[cfg(feature = "rpmalloc")]
        "rpmalloc" => rpmalloc::proof,
        #[cfg(feature = "rusty-alloc")]
        "rusty-alloc" => rusty_alloc::proof,
        #[cfg(feature = "snmalloc")]
        "snmalloc" => snmalloc::proof,
        #[cfg(feature = "stoolap-jemalloc")]
        "stoolap-jemalloc" => stoolap_jemalloc::proof,
        #[cfg(feature = "tcmalloc")]
        "tcmalloc" => tcmalloc::proof,
        _ => return None,
    })
}

fn main() -> ExitCode {
    // Its words do not say: the harness calls every subject the same.
    // SAFETY: asks for one word of what the kernel left.
    let path = unsafe { libc::getauxval(libc::AT_EXECFN) };
    // SAFETY: the kernel puts a string there, the path that was asked for, and it stays.
    let started_as = unsafe { CStr::from_ptr(path as *const c_char) }.to_string_lossy();
    let file = Path::new(&*started_as).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let subject = file.strip_prefix("subject-").unwrap_or(file);
    match proof_of(subject) {
        Some(proof) => freestone_bench::subject::main(subject, proof, Controls::NONE),
        None => {
            eprintln!("this build has no proof of '{subject}'");
            ExitCode::from(2)
        }
    }
}
