//! A profile in the form that was asked for, and what a client is to be told of that form.

use super::query::{Form, Query};
use super::text;
use crate::http::naming;
use crate::profile::{Context, Profile};

/// A picture.
pub(super) const SVG: &str = "image/svg+xml";
/// What a browser may do with one: run what came with it, on its own. There are names in it that strangers chose.
pub(super) const SVG_POLICY: &str =
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// An answer.
pub(super) struct Written {
    pub body: Vec<u8>,
    pub content_type: &'static str,
    /// Is it to become a file? Nobody reads it in a browser.
    pub is_saved: bool,
}

/// What somebody reads in the browser.
fn shown(content_type: &'static str, text: String) -> Written {
    Written { body: text.into_bytes(), content_type, is_saved: false }
}

/// Writes a profile. A form that this program was built without is a sentence.
pub(super) fn write(profile: &Profile, query: &Query) -> Result<Written, &'static str> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let &Query { form, is_named, column, .. } = query;
    naming::with(|names| {
        Ok(match form {
            Form::Pprof => {
                if !is_named {
                    names.namer = None;
                }
                Written { body: profile.pprof(names), content_type: "application/octet-stream", is_saved: true }
            }
            Form::Text => shown(TEXT, text::text(profile, names)),
            Form::Folded => shown(TEXT, profile.folded(column, names)),
            Form::Top => shown(TEXT, profile.top(column, names).to_string()),
            Form::Json => shown("application/json", profile.json(names)),
            Form::Svg => svg(profile, column, names)?,
        })
    })
}

#[cfg(feature = "flamegraph")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it is a sentence")]
fn svg(profile: &Profile, column: usize, names: &mut Context<'_>) -> Result<Written, &'static str> {
    Ok(shown(SVG, profile.flamegraph(column, names)))
}

#[cfg(not(feature = "flamegraph"))]
fn svg(_profile: &Profile, _column: usize, _names: &mut Context<'_>) -> Result<Written, &'static str> {
    Err("this program was built without pictures: freestone-stats has a feature flamegraph, and /debug/freestone/ui draws one")
}
