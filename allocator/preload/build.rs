//! Tells the shared sources which face they are compiled for, and the linker what a library under every program needs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if (target("ARCH").as_str(), target("OS").as_str(), target("ENV").as_str()) != ("x86_64", "linux", "gnu") {
        // Without the face for C, rather than with an assembler's complaints: the rest of the workspace is to build.
        println!("cargo:warning=the face for C is for x86-64 Linux with glibc: this library has no functions");
        return;
    }
    println!("cargo:rustc-cfg=freestone_c");
    if std::env::var_os("CARGO_FEATURE_DLOPEN").is_none() {
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
