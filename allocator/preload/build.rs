//! Tells the shared sources which face they are compiled for, and the linker what a library under every program needs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=freestone_c");
    let is_x86_64 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if is_x86_64 && std::env::var_os("CARGO_FEATURE_DLOPEN").is_none() {
        println!("cargo:rustc-cfg=freestone_initial_exec");
    }
    let arguments = [
        "-Wl,-soname,libfreestone.so",
        // The program holds blocks of ours, and threads run our destructors: never unloaded.
        "-Wl,-z,nodelete",
        // Our constructor runs before those of all other libraries: handlers around `fork` that one of these registers before anybody allocates
        // would otherwise run while ours hold all locks, and get no memory. In glibc before 2.34 libpthread has this place.
        "-Wl,-z,initfirst",
        // Nothing of ours is looked up for the first time in a signal handler, or in the child of a fork.
        "-Wl,-z,now",
        // Libraries that are not used need not be loaded into every process.
        "-Wl,--as-needed",
    ];
    for argument in arguments {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
}
