//! What a request for a profile asks for. A pure function over what strangers write.

use crate::profile::Kind;

/// Longer differences are what continuous profiling is for.
const SECONDS_MAX: u64 = 3600;

/// The forms a profile comes in, by their `format=`; the first is the one without a query.
pub(super) const FORMS: [(&str, Form); 5] =
    [("pprof", Form::Pprof), ("folded", Form::Folded), ("svg", Form::Svg), ("json", Form::Json), ("top", Form::Top)];

/// In which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Pprof,
    /// `debug=1`: for people, and for what reads the older text formats of pprof.
    Text,
    Folded,
    Svg,
    Json,
    Top,
}

impl Form {
    /// Of one column only: the query may choose which.
    const fn has_one_column(self) -> bool {
        matches!(self, Self::Folded | Self::Svg | Self::Top)
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Query {
    pub form: Form,
    /// Give free memory back first?
    pub releases: bool,
    /// Function names in a form for tools, which ask for them at `symbol` otherwise?
    pub is_named: bool,
    /// The difference over so many seconds.
    pub seconds: Option<u64>,
    /// The column, for forms of one.
    pub column: usize,
}

impl Query {
    /// Go's parameters `debug`, `seconds` and `gc`, with Go's words where Go has some; `format`, `names`, and `sample_index` as `go tool pprof` calls it. Unlike
    /// Go this refuses what it does not understand: `second=30` would be answered with something else.
    pub(super) fn parse(query: Option<&str>, kind: Kind) -> Result<Self, String> {
        let [mut debug, mut seconds, mut gc, mut format, mut names, mut column] = [None; 6];
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match key {
                "debug" => &mut debug,
                "seconds" => &mut seconds,
                "gc" => &mut gc,
                "format" => &mut format,
                "names" => &mut names,
                "sample_index" => &mut column,
                _ => {
                    return Err("the query is not understood: profiles know debug, seconds, gc, format, names and sample_index"
                        .to_owned());
                }
            };
            if place.replace(value).is_some() {
                return Err("the query says one thing twice".to_owned());
            }
        }
        let seconds = seconds.map(|seconds| parse_seconds(seconds, kind)).transpose()?;
        let is_text = parse_number("debug", debug)? != 0;
        if is_text && seconds.is_some() {
            return Err("seconds and debug params are incompatible".to_owned());
        }
        if is_text && format.is_some() {
            return Err("format and debug params are incompatible".to_owned());
        }
        let form = match format {
            None if is_text => Form::Text,
            None => Form::Pprof,
            Some(name) => FORMS.iter().find(|(known, _)| *known == name).map(|(_, form)| *form).ok_or_else(unknown_format)?,
        };
        if names.is_some() && form != Form::Pprof {
            return Err("\"names\" is for format=pprof: the others have them".to_owned());
        }
        Ok(Self {
            form,
            releases: parse_number("gc", gc)? > 0,
            is_named: parse_number("names", names)? > 0,
            seconds,
            column: parse_column(column, form, kind)?,
        })
    }
}

fn unknown_format() -> String {
    format!("invalid value for \"format\" - must be one of {}", FORMS.map(|(name, _)| name).join(", "))
}

/// Digits only: Go's parser takes a sign, and nothing that has one is meant.
fn parse_seconds(text: &str, kind: Kind) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number || text.bytes().all(|digit| digit == b'0') {
        return Err("invalid value for \"seconds\" - must be a positive integer".to_owned());
    }
    if kind == Kind::Peak {
        return Err("\"seconds\" parameter is not supported for this profile type".to_owned());
    }
    let seconds = text.parse().ok().filter(|&seconds| seconds <= SECONDS_MAX);
    seconds.ok_or_else(|| format!("invalid value for \"seconds\" - must be at most {SECONDS_MAX}"))
}

fn parse_number(key: &str, text: Option<&str>) -> Result<i32, String> {
    let number = text.map_or(Ok(0), str::parse);
    number.map_err(|_| format!("invalid value for \"{key}\" - must be an integer"))
}

fn parse_column(name: Option<&str>, form: Form, kind: Kind) -> Result<usize, String> {
    let Some(name) = name else { return Ok(kind.default_value()) };
    if !form.has_one_column() {
        return Err("\"sample_index\" is for format=folded, format=svg and format=top: the others have all columns".to_owned());
    }
    let types = kind.value_types();
    let names = || types.iter().map(|of| of.name).collect::<Vec<_>>().join(", ");
    let found = types.iter().position(|of| of.name == name);
    found.ok_or_else(|| format!("invalid value for \"sample_index\" - must be one of {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, String> {
        Query::parse(Some(query), Kind::Heap)
    }

    #[test]
    fn nothing_asks_for_pprof() {
        let plain = Query { form: Form::Pprof, releases: false, is_named: false, seconds: None, column: 3 };
        assert_eq!(Query::parse(None, Kind::Heap), Ok(plain));
        for same in ["", "&&", "debug=0", "gc=0", "format=pprof", "gc=-1", "names=0"] {
            assert_eq!(parse(same), Ok(plain), "{same}");
        }
    }

    #[test]
    fn what_go_knows_is_known() {
        assert_eq!(parse("debug=1").map(|query| query.form), Ok(Form::Text));
        assert_eq!(parse("debug=2&gc=1").map(|query| (query.form, query.releases)), Ok((Form::Text, true)));
        assert_eq!(parse("names=1").map(|query| query.is_named), Ok(true));
        assert_eq!(parse("seconds=3600&debug=0").map(|query| query.seconds), Ok(Some(3600)));
        assert_eq!(parse("seconds=0007").map(|query| query.seconds), Ok(Some(7)));
        assert_eq!(parse("format=top&sample_index=alloc_space").map(|query| (query.form, query.column)), Ok((Form::Top, 1)));
    }

    #[test]
    fn the_rest_is_refused_in_a_sentence_that_repeats_nothing() {
        for (wrong, word) in [
            ("seconds=", "positive integer"),
            ("seconds=0", "positive integer"),
            ("seconds=000", "positive integer"),
            ("seconds=-1", "positive integer"),
            ("seconds=+1", "positive integer"),
            ("seconds=1.5", "positive integer"),
            ("seconds=1e3", "positive integer"),
            ("seconds=\u{661}", "positive integer"),
            ("seconds=3601", "at most 3600"),
            ("seconds=99999999999999999999999", "at most 3600"),
            ("seconds=1&debug=1", "seconds and debug params are incompatible"),
            ("format=svg&debug=1", "format and debug params are incompatible"),
            ("debug=yes", "must be an integer"),
            ("debug=", "must be an integer"),
            ("gc=99999999999", "must be an integer"),
            ("format=xml", "must be one of pprof, folded"),
            ("format", "must be one of pprof, folded"),
            ("sample_index=inuse_space", "is for format=folded"),
            ("format=top&sample_index=delay", "must be one of alloc_objects"),
            ("format=top&names=1", "is for format=pprof"),
            ("names=all", "must be an integer"),
            ("second=30", "is not understood"),
            ("debug=1&debug=1", "twice"),
            ("%73econds=1", "is not understood"),
            ("<script>", "is not understood"),
        ] {
            let refusal = parse(wrong).expect_err(wrong);
            assert!(refusal.contains(word), "{wrong}: {refusal}");
            assert!(!refusal.contains("script") && !refusal.contains("xml"), "{refusal}");
        }
        let peak = Query::parse(Some("seconds=1"), Kind::Peak);
        assert_eq!(peak, Err("\"seconds\" parameter is not supported for this profile type".to_owned()));
    }
}
