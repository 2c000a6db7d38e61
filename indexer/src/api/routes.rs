//! The routes of the API as data: which patterns there are, and which methods each takes.
//!
//! In: a path as sent. Out: the route, with the texts that stand in its places. Paths are split before they are decoded, as
//! keys hold slashes. The description in `openapi.json` is held against this table by a test.

use http::Method;
use percent_encoding::percent_decode_str;

use super::answers::Problem;
use super::erasures::ID_PREFIX;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Route {
    ContextSearch,
    ContextExport,
    Erasures,
    Erasure,
    Context,
    InstanceSearch,
    Instance,
    AttributeNames,
    AttributeValues,
    Kinds,
    Kind,
    UserSearch,
    Users,
    User,
    OpenApi,
}

/// Route, pattern below `/api/v2`, methods. Of two patterns that fit, the first counts.
const ROUTES: [(Route, &str, &[&str]); 15] = [
    (Route::ContextSearch, "/projects/{project}/environments/{environment}/contexts/search", &["GET", "POST"]),
    (Route::ContextExport, "/projects/{project}/environments/{environment}/contexts/export", &["GET", "POST"]),
    (Route::Erasures, "/projects/{project}/environments/{environment}/contexts/erasures", &["GET", "POST"]),
    (Route::Erasure, "/projects/{project}/environments/{environment}/contexts/erasures/{id}", &["GET"]),
    (Route::Context, "/projects/{project}/environments/{environment}/contexts/{kind}/{key}", &["GET"]),
    (
        Route::InstanceSearch,
        "/projects/{project}/environments/{environment}/context-instances/search",
        &["GET", "POST"],
    ),
    (Route::Instance, "/projects/{project}/environments/{environment}/context-instances/{id}", &["GET", "DELETE"]),
    (Route::AttributeNames, "/projects/{project}/environments/{environment}/context-attributes", &["GET"]),
    (
        Route::AttributeValues,
        "/projects/{project}/environments/{environment}/context-attributes/{attributeName}",
        &["GET"],
    ),
    (Route::Kinds, "/projects/{project}/context-kinds", &["GET"]),
    (Route::Kind, "/projects/{project}/context-kinds/{key}", &["PUT"]),
    (Route::UserSearch, "/user-search/{project}/{environment}", &["GET"]),
    (Route::Users, "/users/{project}/{environment}", &["GET"]),
    (Route::User, "/users/{project}/{environment}/{userKey}", &["GET", "DELETE"]),
    (Route::OpenApi, "/openapi.json", &["GET"]),
];

impl Route {
    fn row(self) -> &'static (Self, &'static str, &'static [&'static str]) {
        ROUTES.iter().find(|(route, ..)| *route == self).expect("every route has a row")
    }

    pub fn allows(self, method: &Method) -> bool {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.row().2.contains(&method.as_str())
    }
}

/// A path that was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matched {
    pub route: Route,
    /// What stands in the places of the pattern, decoded, in their order.
    pub places: Vec<String>,
}

impl Matched {
    /// The text in a place; the patterns say which there are.
    pub fn place(&self, number: usize) -> &str {
        self.places.get(number).map_or("", String::as_str)
    }
}

/// The route of a path, or None if there is none.
///
/// # Errors
/// If the path is no UTF-8 text.
pub(super) fn find(path: &str) -> Result<Option<Matched>, Problem> {
    let rest = path.strip_prefix("/api/v2").unwrap_or(path);
    let segments: Vec<String> = rest
        .trim_start_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().map(|text| text.into_owned()))
        .collect::<Result<_, _>>()
        .map_err(|_| Problem::invalid("the path is no UTF-8 text"))?;
    let fit = |(route, pattern, _): &(Route, &str, &[&str])| {
        let places = places(pattern, &segments)?;
        // A kind may be called like the list of erasures.
        let is_other = *route == Route::Erasure && !places.last().is_some_and(|id| id.starts_with(ID_PREFIX));
        (!is_other).then_some(Matched { route: *route, places })
    };
    Ok(ROUTES.iter().find_map(fit))
}

fn places(pattern: &str, segments: &[String]) -> Option<Vec<String>> {
    let wanted: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    if wanted.len() != segments.len() {
        return None;
    }
    let mut places = Vec::new();
    for (wanted, segment) in wanted.into_iter().zip(segments) {
        match wanted.starts_with('{') {
            true => places.push(segment.clone()),
            false if wanted == segment => {}
            false => return None,
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn places_are_decoded_after_the_path_is_split() {
        let found = find("/api/v2/projects/a%20b/environments/e/contexts/user/a%2Fb+%3Ac").unwrap().unwrap();
        assert_eq!(found.route, Route::Context);
        assert_eq!(found.places, ["a b", "e", "user", "a/b+:c"]);
        assert_eq!(find("/api/v2/users/p/e/").unwrap().unwrap().places, ["p", "e", ""]);
        assert_eq!(
            find("/api/v2/projects/p/environments/e/contexts/search").unwrap().unwrap().route,
            Route::ContextSearch
        );
        assert_eq!(find("/api/v2/projects/p/environments/e/contexts").unwrap(), None);
        let erasure =
            |id: &str| find(&format!("/api/v2/projects/p/environments/e/contexts/erasures/{id}")).unwrap().unwrap();
        assert_eq!((erasure("erasure-1").route, erasure("k").route), (Route::Erasure, Route::Context));
        assert!(find("/api/v2/users/p/%FF").is_err());
    }

    /// The description names exactly the routes that there are, with their methods and places.
    #[test]
    fn description_has_the_routes_and_methods_that_there_are() {
        let document: Value = serde_json::from_str(super::super::OPEN_API).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let places: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
            for (method, operation) in item.as_object().unwrap() {
                described.insert((path.strip_prefix("/api/v2").unwrap().to_owned(), method.to_uppercase()));
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let in_path = parameters.filter(|parameter| parameter["in"] == "path");
                let named: BTreeSet<&str> = in_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
                assert_eq!(named, places, "{method} {path}");
                assert!(operation["operationId"].is_string() && operation["responses"].is_object(), "{method} {path}");
            }
        }
        let there: BTreeSet<_> = ROUTES
            .iter()
            .flat_map(|(_, pattern, methods)| methods.iter().map(|method| (pattern.to_string(), method.to_string())))
            .collect();
        assert_eq!(described, there);
    }
}
