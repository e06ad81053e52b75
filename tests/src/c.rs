//! Programs in C and C++ on the C face: builds the library, compiles them, and joins the two.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::{Ending, lock, run, target_folder};

/// How the library is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Library {
    /// As users get it.
    Usual,
    /// With the feature `checked`.
    Checked,
    /// With the feature `dlopen`.
    Dlopen,
}

impl Library {
    const ALL: [Self; 3] = [Self::Usual, Self::Checked, Self::Dlopen];

    const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Checked => "checked",
            Self::Dlopen => "dlopen",
        }
    }

    /// Where `libfreestone.so` and `libfreestone.a` are. Built once per process; cargo knows what is up to date.
    fn folder(self) -> &'static Path {
        static FOLDERS: [OnceLock<PathBuf>; Library::ALL.len()] = [const { OnceLock::new() }; Library::ALL.len()];
        FOLDERS[self as usize].get_or_init(|| {
            let target = target_folder().join("scenarios/preload").join(self.name());
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command
                .args(["build", "--quiet", "--package", "freestone-preload", "--profile", "preload", "--target-dir"])
                .arg(&target);
            if self != Self::Usual {
                command.args(["--features", self.name()]);
            }
            // What the outer cargo set for this test must not change what is built here.
            command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
            let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
            assert!(status.success(), "the library does not build");
            target.join("preload")
        })
    }

    /// `libfreestone.so`.
    #[must_use]
    pub fn shared(self) -> PathBuf {
        self.folder().join("libfreestone.so")
    }

    /// `libfreestone.a`.
    #[must_use]
    pub fn archive(self) -> PathBuf {
        self.folder().join("libfreestone.a")
    }
}

/// How a program comes to the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joined {
    /// Not at all: it has the system's allocator.
    Not,
    /// By `LD_PRELOAD`; it knows nothing of it.
    Preloaded,
    /// Linked against `libfreestone.so`.
    Linked,
    /// Linked against `libfreestone.a`.
    Archived,
    /// As [`Archived`](Self::Archived), and against a C library that is an archive too.
    AllArchived,
}

/// A compiled program.
#[derive(Clone, Debug)]
pub struct Program {
    executable: PathBuf,
    preload: Option<PathBuf>,
}

impl Program {
    /// Compiles a source file of the folder `c` and joins it with the library. C++ if its name says so.
    ///
    /// # Panics
    ///
    /// When it does not compile, or there is no C compiler. See [`has_cpp`] for the other one.
    #[must_use]
    pub fn new(source: &str, joined: Joined, library: Library) -> Self {
        Self::with_flags(source, joined, library, &[])
    }

    /// As [`new`](Self::new), with more flags for the compiler.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_flags(source: &str, joined: Joined, library: Library, flags: &[&str]) -> Self {
        let mut arguments: Vec<PathBuf> = flags.iter().map(PathBuf::from).collect();
        match joined {
            Joined::Not | Joined::Preloaded => {}
            Joined::Linked => {
                let folder = library.folder().display();
                arguments.extend([library.shared(), format!("-Wl,-rpath,{folder}").into(), "-DFREESTONE_LINKED".into()]);
            }
            Joined::Archived => arguments.extend([library.archive(), "-DFREESTONE_LINKED".into()]),
            Joined::AllArchived => {
                arguments.extend([library.archive(), "-static".into(), "-DFREESTONE_LINKED".into(), "-DALL_ARCHIVED".into()]);
            }
        }
        let preload = (joined == Joined::Preloaded).then(|| library.shared());
        Self { executable: compile(source, &arguments), preload }
    }

    /// A plugin: a shared object out of a source file of the folder `c`, which knows nothing of the library.
    ///
    /// # Panics
    ///
    /// When it does not compile.
    #[must_use]
    pub fn plugin(source: &str, flags: &[&str]) -> PathBuf {
        compile(source, &["-shared", "-fPIC"].iter().chain(flags).map(PathBuf::from).collect::<Vec<_>>())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.executable
    }

    /// The program, ready to be given arguments. Its environment chooses nothing.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.env_remove("FREESTONE").env_remove("FREESTONE_MEMORY_LIMIT");
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command
    }

    /// The program under `strace` with these options. The tracer itself does without the library.
    #[must_use]
    pub fn traced(&self, options: &[String]) -> Command {
        let mut command = Command::new("strace");
        command.env_remove("FREESTONE").env_remove("FREESTONE_MEMORY_LIMIT").args(options);
        command.args(self.preload.iter().map(|library| format!("--env=LD_PRELOAD={}", library.display()))).arg(&self.executable);
        command
    }
}

/// Is there a C++ compiler? If not, says loudly what is not tested.
#[must_use]
pub fn has_cpp() -> bool {
    has("g++", "C++ programs")
}

/// Is this program installed? If not, says loudly what is not tested.
#[must_use]
pub fn has(tool: &str, what_is_not_tested: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        println!("SKIPPED: there is no {tool} here, so nothing was tested of {what_is_not_tested}");
    }
    is_there
}

/// Asserts that a program ran to its end with nothing to complain about.
///
/// # Panics
///
/// When it had.
pub fn runs(command: &mut Command) -> Ending {
    let ending = run(command);
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{command:?}: {ending:#?}");
    ending
}

/// Compiles a source file of the folder `c`, unless that was done since anything changed that it is made of.
fn compile(source: &str, arguments: &[PathBuf]) -> PathBuf {
    // One at a time: tests of one process want the same programs.
    static COMPILER: Mutex<()> = Mutex::new(());
    let _alone = lock(&COMPILER);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("c");
    let folder = target_folder().join("scenarios/c");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let executable = folder.join(format!("{source}-{:016x}", fingerprint(arguments)));
    let own = std::env::current_exe().expect("a test knows where it is");
    let headers = [sources.join("check.h"), Path::new(INCLUDE).join("freestone.h")];
    let made_of = arguments.iter().filter(|argument| argument.is_absolute()).chain(&headers);
    if changed(&executable) > made_of.chain([&sources.join(source), &own]).map(|path| changed(path)).max().flatten() {
        return executable;
    }
    let compiler = if Path::new(source).extension().is_some_and(|extension| extension == "cpp") { "g++" } else { "cc" };
    let mut command = Command::new(compiler);
    // Without builtins: the compiler knows what `malloc` promises, leaves out what a test is about, and warns of what a test does on purpose.
    command
        .args([
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-use-after-free",
            "-fno-builtin",
            "-pthread",
            "-I",
            INCLUDE,
            "-o",
        ])
        .arg(&executable);
    // Archives come behind what needs them.
    command.arg(sources.join(source)).args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("{compiler} does not run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{source} does not compile: {said}");
    executable
}

const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../allocator/preload/include");

/// When a file was last changed.
fn changed(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|data| data.modified()).ok()
}

/// Tells apart the ways in which one source is compiled.
fn fingerprint(arguments: &[PathBuf]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    arguments.hash(&mut hasher);
    hasher.finish()
}
