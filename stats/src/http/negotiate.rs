//! What a client wants: which form, by its `Accept` and its query. Pure functions over what strangers write.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Uri};

/// Does the client name this type, such as `text/html`? Wildcards do not count: whoever takes everything gets what people read.
pub(super) fn names(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_wanted = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        // `q=0` means "anything but this".
        is_wanted && !parts.any(is_refusal)
    })
}

fn is_refusal(parameter: &str) -> bool {
    let Some((key, weight)) = parameter.split_once('=') else { return false };
    key.trim_end().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0)
}

/// The value of `format=` in a query.
pub(super) fn format(uri: &Uri, known: &'static [&'static str]) -> Result<&'static str, String> {
    choice(uri, "format", known)
}

/// The value of `key=` in a query: one of `known`, or the first of them where there is no query; that may be empty, for addresses that choose
/// otherwise. Anything else is refused with a sentence that repeats nothing of what was sent.
pub(super) fn choice(uri: &Uri, key: &str, known: &'static [&'static str]) -> Result<&'static str, String> {
    let mut chosen = known.first().copied().unwrap_or_default();
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let value = pair.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')).filter(|value| !value.is_empty());
        let value = value.and_then(|value| known.iter().find(|known| **known == value));
        chosen = value.ok_or_else(|| misunderstood(key, known))?;
    }
    Ok(chosen)
}

fn misunderstood(key: &str, known: &[&str]) -> String {
    let choices: Vec<String> = known.iter().filter(|known| !known.is_empty()).map(|known| format!("{key}={known}")).collect();
    if choices.is_empty() {
        return "this address takes no parameters".to_owned();
    }
    format!("the query is not understood: this address knows {}", choices.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, value.parse().expect("a value"))])
    }

    #[test]
    fn a_type_is_wanted_when_it_is_named() {
        let browser = accepting("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        assert!(names(&browser, "text/html"));
        assert!(!names(&browser, "text/plain"), "a wildcard names nothing");
        let scraper = accepting("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3");
        assert!(names(&scraper, "application/openmetrics-text"));
        assert!(!names(&accepting("text/html;q=0, */*"), "text/html"), "refused by weight");
        assert!(!names(&accepting("text/html; q=0.000"), "text/html"), "refused by weight");
        assert!(!names(&HeaderMap::new(), "text/html"));
    }

    #[test]
    fn a_query_chooses_or_is_refused() {
        const KNOWN: &[&str] = &["text", "json"];
        let format_of = |uri: &'static str| format(&Uri::from_static(uri), KNOWN);
        assert_eq!(format_of("/"), Ok("text"));
        assert_eq!(format_of("/?"), Ok("text"));
        assert_eq!(format_of("/?format=json"), Ok("json"));
        assert_eq!(format_of("/?&format=json&"), Ok("json"));
        let refusal = "the query is not understood: this address knows format=text and format=json";
        for wrong in ["/?format=xml", "/?format", "/?format=", "/?FORMAT=json", "/?a=1", "/?format=json&b=%00", "/?%66ormat=json"]
        {
            assert_eq!(format_of(wrong), Err(refusal.to_owned()), "{wrong}");
        }
        assert_eq!(format(&Uri::from_static("/?a"), &[]), Err("this address takes no parameters".to_owned()));
    }
}
