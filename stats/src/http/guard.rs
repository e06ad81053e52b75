//! Who may ask: requests that a web page makes behind its reader's back are refused.
//!
//! A browser is a way into a server on the loopback: every page that somebody has open may send requests to `127.0.0.1`. It may not read
//! the answers, unless it plays a trick with names (*DNS rebinding*: the name `evil.example` first leads to the page, and then to
//! `127.0.0.1`, so that the browser takes both for one site). The name of the site then still stands in `Host`: so a `Host` that
//! is a name nobody chose is refused. An address in numbers cannot be rebound, and passes.
//!
//! Changing something needs no answer, so `POST` is guarded again, by what the browser says of where it came from: the rules of
//! [`cross_site`], which are those of Go's `CrossOriginProtection`.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};

/// Does every name in the request lead here by right? What is said otherwise is for the answer.
pub(super) fn check_host(uri: &Uri, headers: &HeaderMap, named: &[String]) -> Result<(), &'static str> {
    // The name stands in one of two places; where it stands in both, both must pass. Without any, it is no browser.
    for host in headers.get_all(HOST) {
        let host = host.to_str().map_err(|_| "the Host header is not text")?;
        let host = host.parse().map_err(|_| "the Host header is no host")?;
        check_authority(&host, named)?;
    }
    uri.authority().map_or(Ok(()), |authority| check_authority(authority, named))
}

fn check_authority(authority: &axum::http::uri::Authority, named: &[String]) -> Result<(), &'static str> {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = host.parse::<Ipv4Addr>().is_ok() || bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok());
    let is_known = || host.eq_ignore_ascii_case("localhost") || named.iter().any(|name| host.eq_ignore_ascii_case(name));
    if is_address || is_known() {
        Ok(())
    } else {
        Err("this server does not answer to that name: ask for it as localhost or by its address, \
             or add the name with http::Builder::host")
    }
}

/// Did a page of another site send this? By `Sec-Fetch-Site`, which every browser of the last years sends to a loopback and no page can
/// forge; else by `Origin`, which must be of the same host as the request. Programs that are no browsers send neither.
pub(super) fn cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let to = headers.get(HOST).and_then(|host| host.to_str().ok());
    from.is_none() || from != to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn numbers_and_known_names_pass() {
        let named = ["metrics.internal".to_owned()];
        let passes = |host: &'static str| check_host(&Uri::from_static("/"), &with(&[("host", host)]), &named).is_ok();
        for good in [
            "localhost",
            "LocalHost:7070",
            "127.0.0.1:6060",
            "127.9.9.9",
            "[::1]",
            "[::1]:6060",
            "10.0.0.7:80",
            "metrics.internal:1",
        ] {
            assert!(passes(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:6060",
            "127.0.0.1.evil.example",
            "localhost.",
            "0x7f.1",
            "2130706433",
            "",
            "a b",
            "[::1",
            "::1",
            "[evil.example]",
            "@",
        ] {
            assert!(!passes(bad), "{bad}");
        }
    }

    #[test]
    fn every_place_for_a_name_is_looked_at() {
        let verdict = |uri: &'static str, headers: &[(&'static str, &'static str)]| {
            check_host(&uri.parse().expect("a URI"), &with(headers), &[])
        };
        assert!(verdict("/", &[]).is_ok(), "no browser");
        assert!(verdict("http://localhost/", &[]).is_ok());
        assert!(verdict("http://evil.example/", &[("host", "localhost")]).is_err());
        assert!(verdict("http://localhost/", &[("host", "evil.example")]).is_err());
        assert!(verdict("/", &[("host", "localhost"), ("host", "evil.example")]).is_err());
    }

    #[test]
    fn other_sites_are_told_from_one_own() {
        let host = ("host", "127.0.0.1:6060");
        for own in [
            &[host][..],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://127.0.0.1:6060")],
        ] {
            assert!(!cross_site(&with(own)), "{own:?}");
        }
        for other in [
            &[host, ("sec-fetch-site", "cross-site")][..],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "")],
            &[host, ("origin", "https://evil.example")],
            &[host, ("origin", "http://127.0.0.1:7070")],
            &[host, ("origin", "null")],
            &[("origin", "http://127.0.0.1:6060")],
            &[host, ("origin", "http://127.0.0.1:6060"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(cross_site(&with(other)), "{other:?}");
        }
    }
}
