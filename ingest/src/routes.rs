//! Path and method to endpoint: event protocol, section 1.
//!
//! In: method and path as received. Out: a [`Route`], or nothing, and then the path belongs to somebody else.
//! A configured prefix may stand before a path; slashes at its start and end do not count, as SDKs are configured with
//! base URLs of all forms. Not here: whether the credential is good.

use events::Source;
use http::Method;

/// What a request asks for. Text is borrowed from its path, still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route<'p> {
    pub endpoint: Endpoint,
    pub owner: Owner<'p>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Events(Source),
    Diagnostic(Source),
    Pixel,
    Goals,
}

/// Where the environment is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'p> {
    SdkKey,
    MobileKey,
    ClientSideId(&'p str),
    AccessToken { project: &'p str, environment: &'p str },
}

/// What to do with the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Take,
    Preflight,
    NotAllowed(&'static str),
}

impl<'p> Route<'p> {
    pub fn find(prefix: &str, path: &'p str) -> Option<Self> {
        let bare = find_without_prefix(path);
        if bare.is_some() || prefix.is_empty() {
            return bare;
        }
        find_without_prefix(path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))?)
    }

    pub fn is_for_browsers(self) -> bool {
        matches!(self.owner, Owner::ClientSideId(_))
    }

    /// Methods that the path takes, for `Allow` and the cross-origin headers.
    pub fn methods(self) -> &'static str {
        match (self.endpoint, self.is_for_browsers()) {
            (Endpoint::Pixel | Endpoint::Goals, _) => "GET, OPTIONS",
            (_, true) => "POST, OPTIONS",
            (_, false) => "POST",
        }
    }

    pub fn verb(self, method: &Method) -> Verb {
        let wanted = match self.endpoint {
            Endpoint::Pixel | Endpoint::Goals => Method::GET,
            _ => Method::POST,
        };
        if *method == wanted {
            Verb::Take
        } else if *method == Method::OPTIONS && self.is_for_browsers() {
            Verb::Preflight
        } else {
            Verb::NotAllowed(self.methods())
        }
    }
}

fn find_without_prefix(path: &str) -> Option<Route<'_>> {
    let path = path.trim_matches('/');
    let route = |endpoint, owner| Some(Route { endpoint, owner });
    match path {
        "bulk" => return route(Endpoint::Events(Source::Server), Owner::SdkKey),
        "diagnostic" => return route(Endpoint::Diagnostic(Source::Server), Owner::SdkKey),
        "mobile" | "mobile/events" | "mobile/events/bulk" => {
            return route(Endpoint::Events(Source::Mobile), Owner::MobileKey);
        }
        "mobile/events/diagnostic" => return route(Endpoint::Diagnostic(Source::Mobile), Owner::MobileKey),
        _ => {}
    }
    let mut segments = [""; 6];
    let mut count = 0;
    for segment in path.split('/') {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    match segments[..count] {
        ["events", "bulk", id] => route(Endpoint::Events(Source::Browser), Owner::ClientSideId(id)),
        ["events", "diagnostic", id] => route(Endpoint::Diagnostic(Source::Browser), Owner::ClientSideId(id)),
        // Browser SDKs 3.2 to 5.0 put the pixel's path behind the whole events path.
        ["a", image] | ["events", "bulk" | "diagnostic", _, "a", image] => {
            route(Endpoint::Pixel, Owner::ClientSideId(image.strip_suffix(".gif")?))
        }
        ["sdk", "goals", id] => route(Endpoint::Goals, Owner::ClientSideId(id)),
        ["v2", "event-data-import", project, environment] => {
            route(Endpoint::Events(Source::Import), Owner::AccessToken { project, environment })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(prefix: &str, path: &str) -> Option<Endpoint> {
        Route::find(prefix, path).map(|route| route.endpoint)
    }

    #[test]
    fn every_path_of_the_protocol() {
        let client = |id| Owner::ClientSideId(id);
        for (path, expected, owner) in [
            ("/bulk", Endpoint::Events(Source::Server), Owner::SdkKey),
            ("/diagnostic", Endpoint::Diagnostic(Source::Server), Owner::SdkKey),
            ("/mobile", Endpoint::Events(Source::Mobile), Owner::MobileKey),
            ("/mobile/events", Endpoint::Events(Source::Mobile), Owner::MobileKey),
            ("/mobile/events/bulk", Endpoint::Events(Source::Mobile), Owner::MobileKey),
            ("/mobile/events/diagnostic", Endpoint::Diagnostic(Source::Mobile), Owner::MobileKey),
            ("/events/bulk/e1", Endpoint::Events(Source::Browser), client("e1")),
            ("/events/diagnostic/e1", Endpoint::Diagnostic(Source::Browser), client("e1")),
            ("/a/e1.gif", Endpoint::Pixel, client("e1")),
            ("/events/bulk/e1/a/e2.gif", Endpoint::Pixel, client("e2")),
            ("/events/diagnostic/e1/a/e1.gif", Endpoint::Pixel, client("e1")),
            ("/sdk/goals/e1", Endpoint::Goals, client("e1")),
        ] {
            for (prefix, path) in [
                ("", path.to_owned()),
                ("", format!("{path}/")),
                ("/x/y", format!("/x/y{path}")),
                ("/x", path.to_owned()),
            ] {
                let route = Route::find(prefix, &path).unwrap_or_else(|| panic!("{prefix} {path}"));
                assert_eq!((route.endpoint, route.owner), (expected, owner), "{path}");
            }
        }
        let import = Route::find("", "/v2/event-data-import/shop/prod").unwrap();
        assert_eq!(import.owner, Owner::AccessToken { project: "shop", environment: "prod" });
    }

    #[test]
    fn other_paths_are_left_to_others() {
        for path in [
            "/",
            "",
            "/api/v2/projects",
            "/events",
            "/events/bulk",
            "/a/e1.png",
            "/bulk/x",
            "/a/b/c/d/e/f/g/h",
            "/xbulk",
        ] {
            assert_eq!(endpoint("/x", path), None, "{path}");
        }
    }

    #[test]
    fn browsers_may_ask_first() {
        let browser = Route::find("", "/events/bulk/e1").unwrap();
        assert_eq!(browser.verb(&Method::OPTIONS), Verb::Preflight);
        assert_eq!(browser.verb(&Method::PUT), Verb::NotAllowed("POST, OPTIONS"));
        let server = Route::find("", "/bulk").unwrap();
        assert_eq!(server.verb(&Method::GET), Verb::NotAllowed("POST"));
        assert_eq!(Route::find("", "/a/e.gif").unwrap().verb(&Method::POST), Verb::NotAllowed("GET, OPTIONS"));
    }
}
