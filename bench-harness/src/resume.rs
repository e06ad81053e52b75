//! A session that was cut short goes on: the same rows, subjects and order, without the runs that its file has.
//!
//! Nothing of it can be chosen anew, and what cannot be the same as before ends it: half of a session on one machine and half on another would
//! be no session.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use freestone_bench::workload;

use crate::Misuse;
use crate::arguments::Measure;
use crate::machine::Machine;
use crate::plan::{Plan, Row};
use crate::record::{Kept, Kind, Session, View};
use crate::subjects::{Subject, is_again};

/// A session that was cut short.
#[derive(Debug)]
pub(crate) struct Begun {
    /// What there is of it.
    pub(crate) kept: Kept,
    /// Where.
    pub(crate) path: PathBuf,
}

impl Begun {
    /// Reads the last session of a file. A last line that was cut off when the harness died is taken out of it, and said to be.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let (kept, is_cut) = Kept::begun(path)?;
        ensure!(kept.end.is_none(), Misuse(format!("the session in {name} ran to its end, so there is nothing to go on with")));
        ensure!(
            kept.session.kind == Kind::Workloads,
            Misuse(format!("the session in {name} is not of workloads, and only those can go on"))
        );
        let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        if bytes.last() != Some(&b'\n') {
            // What comes next has to begin with a line of its own.
            let whole = if is_cut { bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1) } else { bytes.len() };
            let file = OpenOptions::new().append(true).open(path).with_context(|| format!("cannot write {name}"))?;
            file.set_len(whole as u64).with_context(|| format!("cannot write {name}"))?;
            if is_cut {
                eprintln!("the last line of {name} was cut off, so that run is done again");
            } else {
                (&file).write_all(b"\n").with_context(|| format!("cannot write {name}"))?;
            }
        }
        Ok(Self { kept, path: path.to_owned() })
    }

    /// What it was to do. Only where binaries lie and how long to wait for them is asked anew.
    pub(crate) fn plan(&self, asked: &Measure) -> Result<Plan> {
        let session = &self.kept.session;
        let names = session.subjects.iter().map(|its| &*its.subject).filter(|name| !is_again(name));
        let subjects = names.map(|name| Subject::by_name(name).with_context(|| self.unknown("subject", name)));
        let pairs = session.environment.iter().filter_map(|pair| pair.split_once('='));
        Ok(Plan {
            scenario: session.scenario.clone(),
            rows: session.workloads.iter().map(|title| self.row(title)).collect::<Result<_>>()?,
            subjects: subjects.collect::<Result<_>>()?,
            named: session.subjects.iter().map(|its| its.subject.clone()).collect(),
            repetitions: session.repetitions,
            percent: session.percent,
            seed: Some(session.seed),
            timeout: Duration::from_secs(asked.timeout.unwrap_or(120)),
            environment: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            instructions: session.views.contains(&View::Instructions),
            calls: session.views.contains(&View::Calls),
            prebuilt: asked.prebuilt.clone(),
        })
    }

    fn row(&self, title: &str) -> Result<Row> {
        let mut words = title.split(' ');
        let workload = words.next().and_then(workload::by_name).with_context(|| self.unknown("workload", title))?;
        let pairs = words.map(|word| word.split_once('=').with_context(|| self.unknown("workload", title)));
        let parameters = pairs.map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let floors = self.kept.session.floors.get(title).copied().unwrap_or_default();
        Ok(Row { workload, parameters: parameters.collect::<Result<_>>()?, floors })
    }

    fn unknown(&self, what: &str, name: &str) -> Misuse {
        Misuse(format!("the session in {} has a {what} that is not known here: '{name}'", self.path.display()))
    }

    /// Is a session that would begin now the same in all that bears on the figures? If not, what is not.
    pub(crate) fn check(&self, now: &Session) -> Result<()> {
        let then = &self.kept.session;
        let said = |commit: &Option<String>| commit.clone().unwrap_or_else(|| "none, for binaries that lay there".to_owned());
        let names = |session: &Session| session.subjects.iter().map(|its| its.subject.clone()).collect::<Vec<_>>().join(", ");
        let mut pairs = vec![
            ("the commit of the sources", said(&then.commit), said(&now.commit)),
            ("the way that subjects are built", then.flags.join(" "), now.flags.join(" ")),
        ];
        pairs.extend(machines(&then.machine, &now.machine));
        if let Some((what, then, now)) = pairs.into_iter().find(|(_, then, now)| then != now) {
            bail!(Misuse(format!("cannot go on with {}: {what} was {then}, and is {now}", self.path.display())));
        }
        // As runs name them by their places; sessions of the gate have other subjects, or nobody twice.
        ensure!(
            names(then) == names(now),
            Misuse(format!(
                "cannot go on with {}: its subjects are {}, and now are {}",
                self.path.display(),
                names(then),
                names(now)
            ))
        );
        for version in &then.subjects {
            let found = now.subjects.iter().find(|its| its.subject == version.subject);
            let Some(found) = found else {
                bail!(Misuse(format!("cannot go on with {}: {} is missing now", self.path.display(), version.subject)));
            };
            ensure!(
                found == version,
                Misuse(format!(
                    "cannot go on with {}: {} was {}, and is {}",
                    self.path.display(),
                    version.subject,
                    version.version,
                    found.version
                ))
            );
        }
        Ok(())
    }
}

/// What of a machine is to be the same.
fn machines(then: &Machine, now: &Machine) -> [(&'static str, String, String); 6] {
    [
        ("the processor", then.cpu.clone(), now.cpu.clone()),
        ("the number of cores", then.cores.to_string(), now.cores.to_string()),
        ("the memory in bytes", then.memory_bytes.to_string(), now.memory_bytes.to_string()),
        ("the kernel", then.kernel.clone(), now.kernel.clone()),
        ("the mode of huge pages", then.huge_pages.clone(), now.huge_pages.clone()),
        ("the compiler", then.rustc.clone(), now.rustc.clone()),
    ]
}
