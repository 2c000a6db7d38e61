//! How many requests are served in ten seconds: in all, and per route and method. Off by default.
//!
//! One installation is one account, whatever its tokens. Windows begin at multiples of ten seconds of the clock.
//! Source: context-search-api section 2.5.

use hashbrown::HashMap;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use runtime::UnixMicros;
use serde::{Deserialize, Serialize};

use super::routes::Route;

const WINDOW_MICROS: i64 = 10_000_000;
const GLOBAL_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-global-remaining");
const ROUTE_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-route-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The `[api_rate_limit]` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Requests of the REST API in ten seconds; 0: as many as come.
    pub global: u64,
    /// Requests of one route and method in ten seconds; 0: as many as come.
    pub route: u64,
}

/// What the limits say of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub is_allowed: bool,
    global_remaining: Option<u64>,
    route_remaining: Option<u64>,
    /// End of the window, epoch milliseconds.
    reset: i64,
    retry_after_seconds: i64,
}

/// Requests of the current window. As many entries as there are routes and methods.
#[derive(Debug, Default)]
pub(super) struct Rates {
    limits: RateLimits,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    number: i64,
    all: u64,
    by_route: HashMap<(Route, Method), u64>,
}

impl Rates {
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, window: Mutex::default() }
    }

    /// Counts a request, unless it is refused. None: there are no limits. `method`: one that the route has.
    pub fn take(&self, route: Route, method: &Method, now: UnixMicros) -> Option<Verdict> {
        let RateLimits { global, route: of_route } = self.limits;
        if global == 0 && of_route == 0 {
            return None;
        }
        let number = now.0.div_euclid(WINDOW_MICROS);
        let end = (number + 1) * WINDOW_MICROS;
        let mut window = self.window.lock();
        if window.number != number {
            *window = Window { number, ..Window::default() };
        }
        let used = window.by_route.get(&(route, method.clone())).copied().unwrap_or(0);
        let is_allowed = (global == 0 || window.all < global) && (of_route == 0 || used < of_route);
        if is_allowed {
            window.all += 1;
            *window.by_route.entry((route, method.clone())).or_default() += 1;
        }
        let used = used + u64::from(is_allowed);
        Some(Verdict {
            is_allowed,
            global_remaining: (global > 0).then(|| global.saturating_sub(window.all)),
            route_remaining: (of_route > 0).then(|| of_route.saturating_sub(used)),
            reset: end / 1_000,
            retry_after_seconds: (end - now.0 + 999_999) / 1_000_000,
        })
    }
}

impl Verdict {
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut put = |name: HeaderName, number: i64| headers.insert(name, HeaderValue::from(number));
        for (name, remaining) in [(GLOBAL_REMAINING, self.global_remaining), (ROUTE_REMAINING, self.route_remaining)] {
            if let Some(remaining) = remaining {
                put(name, i64::try_from(remaining).unwrap_or(i64::MAX));
            }
        }
        put(RESET, self.reset);
        if !self.is_allowed {
            put(http::header::RETRY_AFTER, self.retry_after_seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMicros = UnixMicros(1_000 * WINDOW_MICROS);

    #[test]
    fn windows_of_ten_seconds_by_route_and_in_all() {
        let rates = Rates::new(RateLimits { global: 3, route: 2 });
        let take =
            |route, seconds: i64| rates.take(route, &Method::GET, UnixMicros(START.0 + seconds * 1_000_000)).unwrap();
        assert!(take(Route::Kinds, 0).is_allowed && take(Route::Kinds, 1).is_allowed);
        let refused = take(Route::Kinds, 7);
        assert!(!refused.is_allowed);
        assert_eq!((refused.global_remaining, refused.route_remaining), (Some(1), Some(0)));
        assert_eq!((refused.reset, refused.retry_after_seconds), (START.0 / 1_000 + 10_000, 3));
        assert!(take(Route::Users, 8).is_allowed);
        assert!(!take(Route::User, 9).is_allowed, "all three are used up");
        assert!(take(Route::Kinds, 10).is_allowed, "the next window");
    }

    #[test]
    fn no_limits_say_nothing() {
        assert_eq!(Rates::default().take(Route::Kinds, &Method::GET, START), None);
    }
}
