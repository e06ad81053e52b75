//! Programs that nobody changed do on Freestone what they do without it: the same output, the same files, the same exit code.
//!
//! Each test runs its program twice in a folder that was emptied, and says which Debian package to install where the program is missing. That
//! Freestone served the second run is proved too: it was told an option that it does not have, and says so, once for each process.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use freestone_tests::c::Library;
use freestone_tests::{Ending, Random, comes_true, run};

/// Who gives a program its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    System,
    Freestone,
}

impl On {
    /// Lets a command run so.
    fn set(self, command: &mut Command) -> &mut Command {
        match self {
            Self::System => command.env_remove("LD_PRELOAD").env_remove("FREESTONE"),
            Self::Freestone => command.env("LD_PRELOAD", Library::Usual.shared()).env("FREESTONE", "served:1"),
        }
    }
}

/// What Freestone says when it starts to serve a process of these tests.
const SERVED: &str = "freestone: FREESTONE: unknown option 'served' ignored";

/// Where a program is. `None`, and said aloud, where it is not installed.
fn find(program: &str, package: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        // Past the test runner, which shows what a test prints only when it fails.
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: {program} is not installed, so nothing was run on it: apt-get install {package}\n"
        );
    }
    found
}

/// An empty folder of this name, the same for both runs: its path may be in what a program writes.
fn empty_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder for tests can be written to");
    folder
}

/// Runs what `prepare` says on the system's allocator and on Freestone, and compares output, errors, exit code and what `look` finds in the folder.
fn same<T: PartialEq + Debug>(name: &str, prepare: impl Fn(&Path) -> Command, look: impl Fn(&Path, &Ending) -> T) -> T {
    let [(system, found), (mut ours, found_of_ours)] = [On::System, On::Freestone].map(|on| {
        let folder = empty_folder(name);
        let ending = run(on.set(prepare(&folder).current_dir(&folder)));
        let found = look(&folder, &ending);
        (ending, found)
    });
    let (said, others): (Vec<&str>, Vec<&str>) = ours.err.lines().partition(|&line| line == SERVED);
    assert!(!said.is_empty(), "{name} did not run on Freestone: {ours:#?}");
    ours.err = others.iter().fold(String::new(), |text, line| text + line + "\n");
    assert_alike(name, &system, &ours);
    // Not `assert_eq`: what was found may be megabytes.
    assert!(found == found_of_ours, "{name} leaves other files on Freestone");
    found
}

/// Dies at the first line that differs.
fn assert_alike(name: &str, system: &Ending, ours: &Ending) {
    assert_eq!((system.code, system.signal), (Some(0), None), "{name} fails without Freestone:\n{}", system.err);
    assert_eq!((ours.code, ours.signal), (system.code, system.signal), "{name} ends otherwise on Freestone:\n{}", ours.err);
    for (text, own) in [(&system.err, &ours.err), (&system.out, &ours.out)] {
        for (line, own_line) in text.lines().zip(own.lines()) {
            assert_eq!(own_line, line, "{name} says something else on Freestone:\n{}", ours.err);
        }
        assert_eq!(own.lines().count(), text.lines().count(), "{name} says more, or less, on Freestone:\n{}", ours.err);
    }
}

/// For programs that leave no files.
fn only_output(_: &Path, _: &Ending) {}

#[test]
fn python() {
    // Those of the standard library that are quick, quiet, and allocate.
    const SUITES: &str = "test.test_list test.test_dict test.test_set test.test_bytes test.test_unicode test.test_memoryview test.test_struct \
        test.test_json test.test_re test.test_gc test.test_weakref test.test_thread test.test_threading_local test.test_mmap";
    /// Prints what does not change from run to run: how many tests there were, which of them failed, and who had the memory.
    const RUNNER: &str = r"
import io, sys, unittest, test.support
test.support.verbose = 0
suites = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suites)
print(result.testsRun, 'tests', len(result.skipped), 'skipped')
for test, why in result.failures + result.errors:
    print(test, why)
sys.stderr.write('on freestone\n' if 'libfreestone' in open('/proc/self/maps').read() else 'on its own\n')
sys.exit(not result.wasSuccessful())
";
    // A python that somebody installed elsewhere may be a script that finds it, or lack its tests.
    let candidates = [PathBuf::from("/usr/bin/python3")].into_iter().chain(find("python3", "python3"));
    let has_tests = |python: &PathBuf| {
        let seen =
            Command::new(python).args(["-c", "import test.test_list"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        seen.is_ok_and(|status| status.success())
    };
    let Some(python) = candidates.into_iter().find(has_tests) else {
        let _ = writeln!(
            std::io::stderr(),
            "\nSKIPPED: python3 has no tests here: apt-get install python3 libpython3.11-testsuite (or .12, .13)\n"
        );
        return;
    };
    let [system, ours] = [On::System, On::Freestone].map(|on| {
        let mut command = Command::new(&python);
        // Every object by `malloc`, not from the arenas of Python's own.
        command
            .args(["-c", RUNNER])
            .args(SUITES.split_whitespace())
            .env("PYTHONMALLOC", "malloc")
            .current_dir(empty_folder("python"));
        // The suites read the errors of programs that they start, so Freestone gets nothing to say.
        run(on.set(&mut command).env_remove("FREESTONE"))
    });
    assert_eq!((ours.err.as_str(), system.err.as_str()), ("on freestone\n", "on its own\n"));
    let system = Ending { err: ours.err.clone(), ..system };
    assert_alike("python", &system, &ours);
}

#[test]
fn perl() {
    const SCRIPT: &str = r#"
use strict; use warnings;
my ($state, %count, @list) = 12345;
sub draw { $state = ($state * 1103515245 + 12345) & 0x7fffffff; return ($state >> 8) % $_[0]; }
for my $i (1 .. 200000) {
    my $word = join '', map { chr(97 + draw(26)) } 1 .. 1 + draw(4);
    $count{$word}++;
    push @list, $word if draw(4) == 0;
    delete $count{$list[draw(scalar @list)]} if @list && draw(8) == 0;
}
my @sorted = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "$_ $count{$_}\n" for @sorted[0 .. 99];
my @closures = map { my $n = $_; sub { $n += shift } } 1 .. 10000;
my $sum = 0; $sum += $_->(7) for @closures, @closures;
print "$sum\n";
my $text = join ' ', @list;
my $hits = () = $text =~ /\b(\w)(\w)\2\1\b/g;
(my $other = $text) =~ s/(\w)(\w+)/$2$1ay/g;
print "$hits ", length $other, "\n";
my @children;
for my $child (1 .. 4) {
    pipe(my $from, my $to) or die;
    my $pid = fork // die;
    if (!$pid) { my @own = sort map { $_ x $child } @list; print $to "$child $own[$child * 100] ", scalar(@own), "\n"; close $to; exit $child; }
    close $to; push @children, [$pid, $from];
}
for (@children) { my ($pid, $from) = @$_; print <$from>; waitpid $pid, 0; print $? >> 8, "\n"; }
"#;
    let Some(perl) = find("perl", "perl") else { return };
    // The order of a hash is drawn by lot otherwise.
    let script = |_: &Path| {
        let mut command = Command::new(&perl);
        command.args(["-e", SCRIPT]).env("PERL_HASH_SEED", "1");
        command
    };
    same("perl", script, only_output);
}

#[test]
fn git() {
    const SCRIPT: &str = r#"
set -e
git clone --quiet --local "$REPOSITORY" clone
cd clone
git log --stat --oneline | cksum
git log -p -20 | cksum
git gc --quiet --prune=now
git fsck --full --strict
git checkout --quiet -b side
for i in 1 2 3 4 5; do
  seq $i 7 30000 > numbers; cp README.md readme.$i; git add .; git commit --quiet -m "commit $i"
done
git diff --stat HEAD~4 | cat
git blame README.md | cksum
git grep -c unsafe | sort | cksum
git checkout --quiet -b other HEAD~2; echo 1 > another; git add another; git commit --quiet -m another
git merge --quiet --no-edit side; git rebase --quiet HEAD~1
git repack -adfq --depth=20 --window=20; git count-objects; git verify-pack -v .git/objects/pack/*.idx | cut -c 1-50 | sort | cksum
git archive --format=tar HEAD | cksum
git rev-parse HEAD; git status
"#;
    let Some(_) = find("git", "git") else { return };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace");
    if !repository.join(".git").exists() {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: these sources are no git repository, so git was not run\n");
        return;
    }
    let script = |folder: &Path| {
        fs::write(folder.join(".gitconfig"), "[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[pack]\n\tthreads = 1\n")
            .expect("written");
        let mut command = Command::new("bash");
        command.args(["-c", SCRIPT]).env("REPOSITORY", repository).env("HOME", folder).env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Somebody").env(format!("GIT_{who}_EMAIL"), "somebody@example.org");
            command.env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
        }
        command
    };
    same("git", script, only_output);
}

/// A C file of that many functions, seven lines each: a different one, and the same in both runs.
fn generated_c(functions: u64) -> String {
    let mut random = Random::new(7);
    let mut text = String::from("struct node { struct node *next; int key; double weights[4]; };\n");
    for i in 0..functions {
        let (a, b, c) = (random.below(1000), random.below(1000), random.below(4));
        let called = if i == 0 { "x".to_owned() } else { format!("function_{}(x - 1, at)", random.below(i as usize)) };
        let written = write!(
            text,
            "int function_{i}(int x, struct node *at) {{\n  int sum = {a};\n  for (; at; at = at->next)\n    sum += at->key * {b} + \
             (int)(at->weights[{c}] * x);\n  if (x > {b}) return {called};\n  return sum ^ x;\n}}\n",
        );
        written.expect("a string takes anything");
    }
    text
}

#[test]
fn gcc() {
    let Some(gcc) = find("gcc", "gcc") else { return };
    let source = generated_c(3000);
    assert!(source.lines().count() > 20_000);
    let compile = |folder: &Path| {
        fs::write(folder.join("large.c"), &source).expect("written");
        let mut command = Command::new(&gcc);
        // Into a library, so that assembler and linker have something to do; pipes, so that all run at a time.
        command.args(["-O1", "-g", "-pipe", "-fPIC", "-shared", "-Wl,--build-id=none", "-o", "large.so", "large.c"]);
        command
    };
    let object = same("gcc", compile, |folder, _| fs::read(folder.join("large.so")).unwrap_or_default());
    assert!(object.len() > 100_000);
}

#[test]
fn gpp() {
    const SOURCE: &str = r#"
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>
int main() {
  std::unordered_map<std::string, std::vector<std::shared_ptr<int>>> seen;
  unsigned state = 1;
  for (int i = 0; i < 100000; i++) {
    state = state * 1664525 + 1013904223;
    seen[std::to_string(state >> 20)].push_back(std::make_shared<int>(i));
  }
  std::map<size_t, size_t> lengths;
  for (auto &[key, list] : seen) lengths[list.size()]++;
  for (auto &[length, count] : lengths) std::cout << length << ' ' << count << '\n';
  std::vector<std::unique_ptr<std::string>> words(1000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&, t] { for (int i = t; i < 1000; i += 4) words[i] = std::make_unique<std::string>(i, 'a' + i % 26); });
  for (auto &thread : threads) thread.join();
  std::sort(words.begin(), words.end(), [](auto &a, auto &b) { return *a < *b; });
  std::cout << words[500]->size() << ' ' << std::regex_replace(std::string("no memory"), std::regex("(\\w+) (\\w+)"), "$2 $1") << '\n';
  try { std::vector<char> all(size_t(1) << 60); } catch (std::bad_alloc &) { std::cout << "refused\n"; }
  struct alignas(256) Wide { char bytes[256]; };
  auto wide = std::make_unique<Wide[]>(10);
  std::cout << reinterpret_cast<size_t>(wide.get()) % 256 << '\n';
}
"#;
    let Some(gpp) = find("g++", "g++") else { return };
    let compile_and_run = |folder: &Path| {
        fs::write(folder.join("main.cpp"), SOURCE).expect("written");
        let mut command = Command::new("sh");
        command.args(["-c", "\"$0\" -std=c++17 -O1 -pthread -o main main.cpp && ./main"]).arg(&gpp);
        command
    };
    same("g++", compile_and_run, |folder, _| fs::read(folder.join("main")).unwrap_or_default());
}

/// A program that replaces the plain operators of C++ gets the others as the standard has them: they call those. Compilers call the `delete` that
/// is told a size, which the program did not replace, for what its own `new` made: nobody else may take that.
#[test]
fn gpp_with_operators_of_its_own() {
    const SOURCE: &str = r#"
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>
static long live;
void *operator new(std::size_t size) {
  char *block = (char *)std::malloc(size + 32);
  if (!block) throw std::bad_alloc();
  live++;
  return block + 32;
}
void operator delete(void *block) noexcept {
  if (!block) return;
  live--;
  std::free((char *)block - 32);
}
static void tell(const char *what) { std::printf("%s: %ld\n", what, live); }
struct Plain { long words[9]; };
struct Kept { std::string text; ~Kept() {} };
struct alignas(64) Wide { long words[8]; };
int main() {
  Plain *volatile one = new Plain; tell("new"); delete one; tell("delete");
  Plain *volatile many = new Plain[10]; tell("new[]"); delete[] many; tell("delete[]");
  Kept *volatile kept = new Kept[10]; tell("new[] with a count"); delete[] kept; tell("delete[] with a size");
  Plain *volatile quiet = new (std::nothrow) Plain; tell("new that does not throw"); operator delete(quiet, std::nothrow); tell("its delete");
  Plain *volatile quiets = new (std::nothrow) Plain[3]; tell("new[] that does not throw"); operator delete[](quiets, std::nothrow); tell("its delete[]");
  { std::vector<std::string> words(100, std::string(50, 'x')); tell("library"); }
  tell("library's deletes");
  auto wide = std::make_unique<Wide[]>(3);
  std::printf("%zu\n", reinterpret_cast<std::size_t>(wide.get()) % 64);
}
"#;
    let Some(gpp) = find("g++", "g++") else { return };
    let compile_and_run = |folder: &Path| {
        fs::write(folder.join("main.cpp"), SOURCE).expect("written");
        let mut command = Command::new("sh");
        command.args(["-c", "\"$0\" -std=c++17 -O1 -w -o main main.cpp && ./main"]).arg(&gpp);
        command
    };
    same("g++ with operators of its own", compile_and_run, only_output);
}

#[test]
fn sqlite() {
    const SCRIPT: &str = "
PRAGMA journal_mode = WAL;
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, town INTEGER, notes BLOB);
CREATE TABLE town (id INTEGER PRIMARY KEY, name TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO town SELECT i, printf('town %04x', i * 7919 % 65536) FROM n;
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
  INSERT INTO person SELECT i, printf('%08x', i * 2654435761 % 4294967296), i * 31 % 500, zeroblob(i % 300) FROM n;
COMMIT;
CREATE INDEX by_name ON person (name);
CREATE INDEX by_town ON person (town, name);
SELECT town.name, count(*), sum(length(notes)), min(person.name) FROM person JOIN town ON town.id = person.town GROUP BY town.id ORDER BY 3, 1 LIMIT 20;
SELECT name, row_number() OVER (PARTITION BY town ORDER BY name DESC) AS place FROM person WHERE town < 3 ORDER BY name LIMIT 20;
UPDATE person SET notes = 'of ' || name WHERE id % 3 = 0;
DELETE FROM person WHERE id % 5 = 0;
SELECT group_concat(name, '') FROM (SELECT name FROM person ORDER BY name LIMIT 1000);
SELECT json_group_array(json_object('id', id, 'name', name)) FROM (SELECT * FROM person WHERE id < 50);
ANALYZE;
VACUUM;
PRAGMA integrity_check;
SELECT count(*), total(length(notes)) FROM person;
.dump town
";
    let Some(sqlite) = find("sqlite3", "sqlite3") else { return };
    let script = |folder: &Path| {
        fs::write(folder.join("script.sql"), SCRIPT).expect("written");
        let mut command = Command::new(&sqlite);
        command.args(["-init", "/dev/null", "data.db", ".read script.sql"]);
        command
    };
    let contents = same("sqlite", script, |folder, ending| {
        assert!(ending.out.contains("\nok\n"), "{ending:?}");
        fs::read(folder.join("data.db")).unwrap_or_default()
    });
    assert!(contents.len() > 1 << 20);
}

#[test]
fn node() {
    const SCRIPT: &str = r"
const { Worker } = require('worker_threads'), { createHash } = require('crypto'), zlib = require('zlib');
const work = `
  const { parentPort, workerData } = require('worker_threads');
  const words = new Map();
  for (let i = 0; i < 100000; i++) { const word = (i * 2654435761 >>> 0).toString(36).slice(0, workerData + 1); words.set(word, (words.get(word) || 0) + 1); }
  const bytes = Buffer.alloc(1 << 20, 'worker ' + workerData);
  parentPort.postMessage({ words: words.size, bytes }, [bytes.buffer]);
`;
const digest = bytes => createHash('sha256').update(bytes).digest('hex');
async function main() {
  const people = Array.from({ length: 50000 }, (_, i) => ({ i, name: 'name ' + i, list: [i, i + 1, { nested: i % 7 }] }));
  const text = JSON.stringify(people);
  console.log(text.length, digest(text), JSON.parse(text).filter(person => person.list[2].nested === 3).length);
  const buffers = [];
  for (let i = 0; i < 20000; i++) { buffers.push(Buffer.alloc(i % 10000, i & 255)); if (i % 3 === 0) buffers[i >> 1] = Buffer.from('short'); }
  const all = Buffer.concat(buffers);
  console.log(all.length, digest(all), digest(zlib.gunzipSync(zlib.gzipSync(all))));
  const results = await Promise.all([1, 2, 3, 4].map(workerData => new Promise((resolve, reject) => {
    const worker = new Worker(work, { eval: true, workerData });
    worker.on('message', resolve); worker.on('error', reject);
  })));
  for (const result of results) console.log(result.words, digest(result.bytes));
  let fired = 0;
  await new Promise(resolve => { for (let i = 0; i < 1000; i++) setTimeout(() => { if (++fired === 1000) resolve(); }, i % 50); });
  console.log(fired);
  process.exitCode = 0;
}
main();
";
    let Some(node) = find("node", "nodejs") else { return };
    let script = |_: &Path| {
        let mut command = Command::new(&node);
        command.args(["-e", SCRIPT]);
        command
    };
    same("node", script, only_output);
}

#[test]
fn cargo() {
    const MANIFEST: &str = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n";
    const MAIN: &str = r#"
use std::collections::BTreeMap;
fn main() {
    let mut count = BTreeMap::new();
    for word in "the more the merrier the more".split(' ') { *count.entry(word.to_owned()).or_insert(0) += 1; }
    println!("{count:?}");
}
"#;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = |folder: &Path| {
        fs::create_dir(folder.join("src")).expect("made");
        fs::write(folder.join("Cargo.toml"), MANIFEST).expect("written");
        fs::write(folder.join("src/main.rs"), MAIN).expect("written");
        let mut command = Command::new(&cargo);
        command.args(["run", "--quiet", "--offline", "--target-dir", "target"]);
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            command.env_remove(variable);
        }
        command
    };
    same("cargo", build, |folder, _| fs::read(folder.join("target/debug/small")).unwrap_or_default());
}

#[test]
fn shell_and_files() {
    const SCRIPT: &str = r#"
set -eu -o pipefail
export LC_ALL=C
awk 'BEGIN { state = 1; for (i = 0; i < 200000; i++) { state = (state * 16807) % 2147483647; printf "%d line %d of %x\n", state, i, state % 997 } }' > lines
sort --parallel=2 -S 2M lines > sorted; cksum < sorted
sort -t ' ' -k 5,5 -k 1,1n --parallel=2 lines | uniq -c -f 4 | sort -rn | sed -n 1,20p
shuf --random-source=lines lines | sort -n | cksum
grep -Ec '(7|13)+ line .*[0-9a-f]{3}$' lines; grep -n 'of 3e4$' lines | cksum; grep -of <(head -100 lines) sorted | cksum
sed -E 's/^([0-9]+) line ([0-9]+)/\2-\1/; y/abc/ABC/' lines | tail -3
split -n l/7 lines part.; mkdir -p tree/a/b; mv part.* tree/a/b; cp -r tree/a tree/c; ln -s a tree/link
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf tree.tar tree; cksum tree.tar
gzip -n9c tree.tar > tree.tar.gz
mkdir out; tar -xzf tree.tar.gz -C out; diff -r tree out/tree
find tree -type f -size +1k -printf '%p %s\n' | sort; find tree -name 'part.a[a-c]' -exec cksum {} + | sort | xargs -n 3 echo | tr ' ' '\n' | sort | comm - <(seq 100 | sort) | paste -s -d , | fold -w 70
join <(sort -k 1,1 <(head -5000 lines)) <(sort -k 1,1 <(head -9000 lines)) | cksum
declare -A seen; total=0
for i in {1..20000}; do key=$((i * 7919 % 1009)); seen[$key]+="$i "; total=$((total + ${#seen[$key]})); done
echo "${#seen[@]} $total ${seen[77]}"
text=$(printf 'x%.0s' {1..50000}); text=${text//x/yz}; echo ${#text} "${text:777:5}"
for i in 1 2 3 4; do (echo "$i: $(seq $((i * 1000)) | paste -s -d + | wc -c)"); done
count() { local n=$1; if ((n > 0)); then count $((n - 1)); else echo bottom; fi; }; count 300
date -u -d @0; expr length "$text"; factor 1234567890123456789; base64 -w 0 < lines | md5sum; od -An -tx1 -N 16 tree.tar; ls -lR --time-style=+ tree | awk '{ print $1, $NF }'
exit 0
"#;
    let Some(bash) = find("bash", "bash") else { return };
    let script = |_: &Path| {
        let mut command = Command::new(&bash);
        command.args(["-c", SCRIPT]);
        command
    };
    same("shell", script, |folder, _| fs::read(folder.join("tree.tar.gz")).unwrap_or_default());
}

#[test]
fn xz() {
    let Some(xz) = find("xz", "xz-utils") else { return };
    let source = generated_c(20_000);
    let script = |folder: &Path| {
        fs::write(folder.join("text"), &source).expect("written");
        let mut command = Command::new("sh");
        let steps = r#""$0" -k -T2 -4 --block-size=1MiB text && mv text original && "$0" -dk -T2 text.xz && cmp text original && cksum text.xz"#;
        command.args(["-c", steps]).arg(&xz);
        command
    };
    same("xz", script, only_output);
}

/// A server that is ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What Redis has after the same commands, and after it was asked to bear a load.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    answers: String,
    keys: String,
    digest: String,
    digest_after_reload: String,
    code: Option<i32>,
}

#[test]
fn redis() {
    let (Some(server), Some(_), Some(_)) =
        (find("redis-server", "redis-server"), find("redis-cli", "redis-tools"), find("redis-benchmark", "redis-tools"))
    else {
        return;
    };
    let [(system, system_bytes), (ours, bytes)] = [On::System, On::Freestone].map(|on| drive_redis(&server, on));
    assert_eq!(ours, system);
    assert_eq!(system.digest, system.digest_after_reload);
    assert_eq!(system.code, Some(0));
    // Redis adds up what `malloc_usable_size` says.
    let ratio = bytes as f64 / system_bytes as f64;
    assert!((0.7..1.4).contains(&ratio), "{bytes} bytes used on Freestone, {system_bytes} without");
}

/// Starts a server, sends it commands, loads it, ends it. Says what it had, and how many bytes it said it used for it.
fn drive_redis(server: &Path, on: On) -> (Seen, u64) {
    let folder = empty_folder("redis");
    fs::write(folder.join("commands"), redis_commands()).expect("written");
    let mut command = Command::new(server);
    command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--io-threads", "2"]);
    let version = Command::new(server).arg("--version").output().expect("it says its version").stdout;
    if !["v=5.", "v=6."].iter().any(|old| String::from_utf8_lossy(&version).contains(old)) {
        command.args(["--enable-debug-command", "local"]);
    }
    let log = fs::File::create(folder.join("log")).expect("made");
    let errors = fs::File::create(folder.join("errors")).expect("made");
    let child =
        on.set(command.current_dir(&folder).stdin(Stdio::null()).stdout(log).stderr(errors)).spawn().expect("redis starts");
    let mut server = Server(child);

    let shell = |script: &str| {
        let mut ending = run(on.set(Command::new("bash").args(["-c", script]).current_dir(&folder)));
        assert_eq!(ending.code, Some(0), "{script}: {ending:#?}");
        ending.out.truncate(ending.out.trim_end().len());
        ending.out
    };
    let ask = |question: &str| shell(&format!("redis-cli -s redis.sock {question}"));
    let log = || {
        fs::read_to_string(folder.join("log")).unwrap_or_default()
            + &fs::read_to_string(folder.join("errors")).unwrap_or_default()
    };
    assert!(comes_true(Duration::from_secs(20), || folder.join("redis.sock").exists()), "{}", log());

    let maps = fs::read_to_string(format!("/proc/{}/maps", server.0.id())).expect("the kernel tells");
    assert_eq!(maps.contains("libfreestone.so"), on == On::Freestone);
    let answers = shell("redis-cli -s redis.sock < commands | cksum");
    let (keys, digest) = (ask("DBSIZE"), ask("DEBUG DIGEST"));
    let memory = ask("INFO memory");
    let used = memory.lines().find_map(|line| line.trim_end().strip_prefix("used_memory:")).and_then(|bytes| bytes.parse().ok());
    let used = used.unwrap_or_else(|| panic!("{memory}"));
    // Forks a child that writes everything, then reads it back.
    ask("BGSAVE");
    assert!(comes_true(Duration::from_secs(20), || ask("INFO persistence").contains("rdb_bgsave_in_progress:0")), "{}", log());
    assert!(ask("INFO persistence").contains("rdb_last_bgsave_status:ok"), "{}", log());
    ask("DEBUG RELOAD");
    let digest_after_reload = ask("DEBUG DIGEST");
    shell(
        "redis-benchmark -s redis.sock -q -n 10000 -P 16 -c 20 -r 1000 --threads 2 -t set,get,lpush,rpop,sadd,hset,zadd,lrange_100,mset",
    );
    ask("FLUSHALL");
    assert_eq!(ask("DBSIZE"), "0");
    ask("SHUTDOWN NOSAVE");
    assert!(comes_true(Duration::from_secs(20), || server.0.try_wait().is_ok_and(|ended| ended.is_some())), "{}", log());
    let code = server.0.wait().expect("it ended").code();
    assert_eq!(log().contains(SERVED), on == On::Freestone, "{}", log());
    assert!(!log().replace(SERVED, "").contains("freestone:"), "{}", log());
    (Seen { answers, keys, digest, digest_after_reload, code }, used)
}

/// Thirty thousand commands over all types, the same ones in both runs.
fn redis_commands() -> String {
    let mut random = Random::new(11);
    let mut text = String::new();
    for i in 0..30_000 {
        let (key, field, length) = (random.below(500), random.below(2000), random.below(400));
        let value = "v".repeat(length);
        let written = match random.below(9) {
            0 => writeln!(text, "SET string:{key} {i}{value}"),
            1 => writeln!(text, "APPEND string:{key} {value}."),
            2 => writeln!(text, "HSET hash:{key} field{field} {value}."),
            3 => writeln!(text, "RPUSH list:{key} {value}. {i}"),
            4 => writeln!(text, "ZADD sorted:{key} {field} member{length}"),
            5 => writeln!(text, "SADD set:{key} {field} {length}"),
            6 => writeln!(text, "XADD stream:{key} {}-1 field {value}.", i + 1),
            7 => writeln!(text, "LPOP list:{key}"),
            _ => writeln!(text, "DEL string:{key} hash:{field} sorted:{length}"),
        };
        written.expect("a string takes anything");
    }
    text
}
