//! What a person pastes to send the first event: keys, a `curl` line, the lines for SDKs.

use axum::http::{HeaderMap, header};
use events::EnvironmentConfig;
use runtime::UnixMicros;
use serde_json::{Map, Value, json};

/// The address that the person used, so that what is pasted works from where they are.
pub fn events_url(headers: &HeaderMap, authority: &str) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str()).filter(|host| is_authority(host)).unwrap_or(authority);
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{host}")
}

/// Nothing that could leave the quotes of a pasted line.
fn is_authority(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
}

/// The body of `/api/tidegate/setup`.
pub fn answer(url: &str, environments: &[EnvironmentConfig], now: UnixMicros) -> Value {
    let keys: Vec<Value> = environments.iter().map(first_keys).collect();
    let key =
        environments.iter().find_map(|environment| environment.sdk_keys.first()).map_or("YOUR_SDK_KEY", String::as_str);
    json!({"eventsUrl": url, "environments": keys, "curl": curl(url, key, now), "sdk": sdk_lines(url, key)})
}

fn first_keys(environment: &EnvironmentConfig) -> Value {
    let mut keys = Map::new();
    keys.insert("project".into(), environment.project.clone().into());
    keys.insert("environment".into(), environment.key.clone().into());
    let lists = [
        ("sdkKey", &environment.sdk_keys),
        ("mobileKey", &environment.mobile_keys),
        ("clientSideId", &environment.client_side_ids),
    ];
    for (name, list) in lists {
        if let Some(key) = list.first() {
            keys.insert(name.into(), key.clone().into());
        }
    }
    Value::Object(keys)
}

/// A line that sends a first context and one evaluation.
pub fn curl(url: &str, sdk_key: &str, now: UnixMicros) -> String {
    let now = now.as_millis();
    let context = r#"{"kind":"user","key":"u-ana","name":"Ana Souza","plan":"gold"}"#;
    let identify = format!(r#"{{"kind":"identify","creationDate":{now},"context":{context}}}"#);
    let feature = format!(
        r#"{{"kind":"feature","creationDate":{now},"key":"new-checkout","variation":1,"version":1,"value":true,"context":{context}}}"#
    );
    let summary = format!(
        r#"{{"kind":"summary","startDate":{now},"endDate":{now},"features":{{"new-checkout":{{"default":false,"contextKinds":["user"],"counters":[{{"variation":1,"version":1,"value":true,"count":1}}]}}}}}}"#
    );
    format!(
        "curl -i {url}/bulk -H 'Authorization: {sdk_key}' -H 'Content-Type: application/json' \
         -H 'X-LaunchDarkly-Event-Schema: 4' -d '[{identify},{feature},{summary}]'"
    )
}

/// The lines that point an SDK's events here; all else of the SDK stays as it is. The last line is the one that matters.
pub fn sdk_lines(url: &str, sdk_key: &str) -> Value {
    json!({
        "python": format!(
            "import ldclient\nfrom ldclient.config import Config\n\n\
             ldclient.set_config(Config(\"{sdk_key}\", events_uri=\"{url}\"))"
        ),
        "node": format!(
            "import {{ init }} from \"@launchdarkly/node-server-sdk\";\n\n\
             const client = init(\"{sdk_key}\", {{ eventsUri: \"{url}\" }});"
        ),
        "go": format!(
            "import (\n\t\"time\"\n\n\tld \"github.com/launchdarkly/go-server-sdk/v7\"\n\t\
             \"github.com/launchdarkly/go-server-sdk/v7/interfaces\"\n)\n\n\
             endpoints := interfaces.ServiceEndpoints{{Events: \"{url}\"}}.WithPartialSpecification()\n\
             client, err := ld.MakeCustomClient(\"{sdk_key}\", ld.Config{{ServiceEndpoints: endpoints}}, 5*time.Second)"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_of_the_request_is_used_if_it_is_harmless() {
        let mut headers = HeaderMap::new();
        assert_eq!(events_url(&headers, "127.0.0.1:8030"), "http://127.0.0.1:8030");
        headers.insert("host", "flags.example:8030".parse().unwrap());
        assert_eq!(events_url(&headers, "127.0.0.1:8030"), "http://flags.example:8030");
        headers.insert("host", "x'; rm -rf .".parse().unwrap());
        assert_eq!(events_url(&headers, "127.0.0.1:8030"), "http://127.0.0.1:8030");
    }

    #[test]
    fn pasted_body_is_json() {
        let line = curl("http://h", "sdk-fake", UnixMicros::from_millis(1));
        let body = line.split("-d '").nth(1).unwrap().trim_end_matches('\'');
        assert_eq!(serde_json::from_str::<Value>(body).unwrap().as_array().unwrap().len(), 3);
    }
}
