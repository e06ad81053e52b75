//! A session as one JSON document: rows × subjects × figures, each with its median, its interval and how it compares, and where all of it
//! comes from. `docs/benchmarking.md` says what is in it; [`FORMAT`] changes when a field goes or gets another meaning, not when one is added.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Report;
use super::figures::{Lead, Line, Matrix, Tally};
use crate::statistics::Estimate;

/// The number of the form.
const FORMAT: u64 = 1;

/// The whole text.
pub(super) fn text(matrix: &Matrix<'_>) -> Result<String> {
    let figures = matrix
        .figures
        .iter()
        .map(|figure| json!({ "name": figure.name, "title": figure.title, "unit": figure.unit, "better": figure.better }));
    let document = json!({
        "format": FORMAT,
        "harness": concat!("freestone-bench ", env!("CARGO_PKG_VERSION")),
        "session": matrix.kept.session,
        "end": matrix.kept.end,
        "base": matrix.base_name(),
        "subjects": matrix.subjects,
        "figures": figures.collect::<Vec<_>>(),
        "rows": matrix.rows.iter().map(|row| line(matrix, row)).collect::<Vec<_>>(),
        "floors_missed": Report::of(matrix.kept).missed(),
        "problems": Report::of(matrix.kept).problems(),
        "warnings": Report::of(matrix.kept).warnings(),
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn line(matrix: &Matrix<'_>, row: &Line<'_>) -> Value {
    let cells: Map<String, Value> =
        matrix.subjects.iter().zip(&row.tallies).map(|(subject, tally)| ((*subject).to_owned(), cell(matrix, tally))).collect();
    let judged = matrix.figures.iter().filter_map(|figure| {
        let judged = matrix.judge(row, figure)?;
        let mut value = difference(&judged.lead);
        value["best_other"] = json!(judged.best);
        Some((figure.name.clone(), value))
    });
    let noise = matrix.figures.iter().filter_map(|figure| {
        let noise = row.noise(&figure.name)?;
        Some((figure.name.clone(), estimate(&noise)))
    });
    json!({
        "row": row.title,
        "cells": cells,
        "base_against_best_other": judged.collect::<Map<_, _>>(),
        "same_against_itself": noise.collect::<Map<_, _>>(),
    })
}

fn cell(matrix: &Matrix<'_>, tally: &Tally<'_>) -> Value {
    let figures = matrix.figures.iter().filter_map(|figure| {
        let mut value = estimate(&tally.estimate(&figure.name)?);
        if let Some(lead) = tally.lead(&figure.name) {
            value["base_is_better_by"] = difference(&lead);
        }
        Some((figure.name.clone(), value))
    });
    let failures = tally.failures.iter().map(|(round, reason)| json!({ "round": round, "reason": reason }));
    json!({ "figures": figures.collect::<Map<_, _>>(), "failures": failures.collect::<Vec<_>>() })
}

fn estimate(its: &Estimate) -> Value {
    json!({ "median": its.median, "low": its.low, "high": its.high, "runs": its.runs })
}

fn difference(its: &Lead) -> Value {
    json!({
        "ratio": its.ratio.median,
        "low": its.ratio.low,
        "high": its.ratio.high,
        "runs": its.ratio.runs,
        "p": its.p,
        "verdict": its.verdict,
    })
}
