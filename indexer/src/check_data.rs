//! Check data of context-search-api section 6.5, copied as it stands there. For tests.

/// Contexts by name, oldest last seen first.
pub const CONTEXTS: &str = r#"{"A": {"kind":"user","key":"u-ana","name":"Ana Souza","email":"ana@lagoa.example","plan":"gold","seats":44,"beta":true,"joined":"2026-01-15T00:00:00Z","address":{"city":"Recife"},"groups":["qa","ops"]},
 "B": {"kind":"user","key":"u-bo","name":"Bo Lind","plan":"silver","seats":3,"joined":1735689600000},
 "C": {"kind":"user","key":"u:jo|1","name":"Johan, Jr","plan":"gold","beta":false},
 "D": {"kind":"org","key":"lagoa","name":"Lagoa Foods","city":"Recife","tags":["eu","vip"]},
 "E": {"kind":"device","key":"d-1","os":"iOS 19","job/title":"kiosk"}}"#;

/// Filters and the names of the contexts they find.
pub const MATCHES: &str = r#"kind equals "user" => A B C
plan equals gold => A C
user.plan notEquals "gold" => B
user.beta notEquals true => B C
kind anyOf ["org","device"] => D E
user.seats equals 44 => A
user.seats equals "44" =>
user.joined after "2026-01-15T00:00:00+00:00" => A
user.joined before 1735689600000 => B
*.name startsWith Jo,kind anyOf ["user","org"] => C
kindKey equals "user:u:jo|1" => C
key equals u:jo\|1 => C
key startsWith u- => A B
user./address/city equals Recife => A
device.job/title exists true => E
device./job~1title equals kiosk => E
device.os startsWith "ios" => E
"user.name" equals "Johan, Jr" => C
user.name equals Johan\,\ Jr => C
org.tags equals ["eu","vip"] => D
org.tags equals ["vip","eu"] =>
org.tags contains vip => D
user.groups anyOf ["ops","dev"] => A
user.email exists false => B C
kinds contains ["org"] => D
kind equals "org"|(plan equals gold,beta equals true) => A D
plan equals gold,beta equals true|kind equals "org" => A D
(kind equals user|kind equals org),*.name startsWith "l" => D
kind:{"equals":["org","device"]} => D E
q equals "recife" => A D
q equals "lagoa recife" => A D
q equals ["kiosk","silvr"] => B E"#;

/// Filters that are refused.
pub const FAULTS: &str = r#"kind equals
kind like "user"
kind before "2026-01-01T00:00:00Z"
(kind equals "user"
kind equals "user",
user.joined after tomorrow
q startsWith "a"
name equals Johan Jr
user.email exists "yes"
!kind equals "user"
kind equals "user
user.plan equals null"#;
