//! The tables of what was not looked at by the clock: instructions, and calls into the system.
//!
//! Both come from runs of their own, one of each subject on each row. Instructions repeat to a fraction of a percent, so one is enough; calls repeat
//! as well as the program does what it did before, which with several threads is not to the last call.

use std::collections::BTreeSet;

use comfy_table::Table;

use super::{Format, Report, print_right, thousands};
use crate::instructions::PERCENT_NOTE;
use crate::record::{Measurement, Outcome, View};
use crate::subjects::is_again;

/// How a subject did in a view of a row.
enum Seen<'a> {
    Measured(&'a Measurement),
    Failed,
    Nothing,
}

impl Report<'_> {
    /// A table for each view that somebody asked for; nothing, if nobody did.
    pub(super) fn print_views(&self, text: &mut String, format: Format) {
        self.print_instructions(text, format);
        self.print_calls(text, format);
    }

    fn seen(&self, view: View, workload: &str, subject: &str) -> Seen<'_> {
        let mut runs = self.kept.runs.iter().filter(|run| run.view == view && run.workload == workload && run.subject == subject);
        match runs.next().map(|run| &run.outcome) {
            Some(Outcome::Measured(measurement)) => Seen::Measured(measurement),
            Some(Outcome::Failed(_)) => Seen::Failed,
            None => Seen::Nothing,
        }
    }

    /// The rows and the subjects of a view, in the order of the session; `None` when there are none.
    fn in_view(&self, view: View) -> Option<(Vec<&str>, Vec<&str>)> {
        let session = &self.kept.session;
        let runs = || self.kept.runs.iter().filter(move |run| run.view == view);
        let rows: Vec<&str> =
            session.workloads.iter().map(|row| &**row).filter(|row| runs().any(|run| run.workload == *row)).collect();
        let subjects = session.subjects.iter().map(|its| &*its.subject).filter(|subject| !is_again(subject)).collect();
        (!rows.is_empty()).then_some((rows, subjects))
    }

    fn print_instructions(&self, text: &mut String, format: Format) {
        let Some((rows, subjects)) = self.in_view(View::Instructions) else { return };
        let freestone = self.freestone().map(|place| self.subjects[place]);
        let per_operation = |row: &str, subject: &str| match self.seen(View::Instructions, row, subject) {
            Seen::Measured(its) => Ok(its.instructions.map(|count| count as f64 / its.operations.max(1) as f64)),
            Seen::Failed => Err("failed"),
            Seen::Nothing => Ok(None),
        };
        let mut table = Table::new();
        table.set_header([""].into_iter().chain(subjects.iter().copied()));
        for row in &rows {
            let freestones =
                freestone.and_then(|subject| per_operation(row, subject).ok().flatten()).filter(|count| *count > 0.0);
            let mut texts = vec![(*row).to_owned()];
            for subject in &subjects {
                texts.push(match (per_operation(row, subject), freestones) {
                    (Err(failed), _) => failed.to_owned(),
                    (Ok(None), _) => "–".to_owned(),
                    (Ok(Some(count)), Some(freestones)) if Some(*subject) != freestone => {
                        format!("{} ({:.2} ×)", figure(count), count / freestones)
                    }
                    (Ok(Some(count)), _) => figure(count),
                });
            }
            table.add_row(texts);
        }
        let mut percents = BTreeSet::new();
        for run in self.kept.runs.iter().filter(|run| run.view == View::Instructions) {
            if let Outcome::Measured(measurement) = &run.outcome {
                percents.extend(measurement.notes.get(PERCENT_NOTE).copied());
            }
        }
        let percents = percents.iter().map(|percent| format!("{percent} %")).collect::<Vec<_>>().join(" or ");
        let mut said = format!("Of the timed part, by callgrind, over {percents} of the operations.");
        if freestone.is_some() {
            said.push_str(" In parentheses: how many times Freestone's.");
        }
        print_right(text, "Instructions per operation", &said, table, format);
    }

    fn print_calls(&self, text: &mut String, format: Format) {
        let Some((rows, subjects)) = self.in_view(View::Calls) else { return };
        let mut table = Table::new();
        table.set_header([""].into_iter().chain(subjects.iter().copied()));
        for row in &rows {
            let seen: Vec<Seen<'_>> = subjects.iter().map(|subject| self.seen(View::Calls, row, subject)).collect();
            let line = |name: String, count: &dyn Fn(&Measurement) -> u64| {
                let counts = seen.iter().map(|seen| match seen {
                    Seen::Measured(measurement) => thousands(count(measurement) as f64),
                    Seen::Failed => "failed".to_owned(),
                    Seen::Nothing => "–".to_owned(),
                });
                [name].into_iter().chain(counts).collect::<Vec<_>>()
            };
            let all = |its: &Measurement| its.os_calls.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
            let title = if format == Format::Markdown { format!("**{row}**") } else { (*row).to_owned() };
            table.add_row(line(title, &all));
            let kinds: BTreeSet<&String> = seen
                .iter()
                .filter_map(|seen| if let Seen::Measured(measurement) = seen { Some(measurement.os_calls.keys()) } else { None })
                .flatten()
                .collect();
            for kind in kinds {
                table.add_row(line(format!("  {kind}"), &|its| its.os_calls.get(kind).copied().unwrap_or(0)));
            }
        }
        let said =
            "Of the whole process with all its threads, in one run. Only calls about memory, waiting and threads are counted.";
        print_right(text, "Calls into the system", said, table, format);
    }
}

/// Such as `36.2`; of many, a whole number.
fn figure(count: f64) -> String {
    if count < 1_000.0 { format!("{count:.1}") } else { thousands(count) }
}
