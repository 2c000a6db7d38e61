use std::collections::BTreeSet;
use std::path::Path;

use super::check::{LISTS, SECTIONS, check, keys_of};
use super::*;

fn file(text: &str) -> (tempfile::TempDir, Layers) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipeline.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Layers { file: Some(path), ..Layers::default() })
}

fn with_variables(layers: Layers, variables: &[(&str, &str)]) -> Layers {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Layers { variables, ..layers }
}

fn mistakes(layers: &Layers) -> Vec<String> {
    load(layers).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_mistake(mistakes: &[String], parts: &[&str]) {
    assert!(
        mistakes.iter().any(|mistake| parts.iter().all(|part| mistake.contains(part))),
        "no {parts:?} in {mistakes:#?}"
    );
}

const DOCUMENTED: &str = include_str!("../../../config/pipeline.toml");

#[test]
fn documented_file_is_the_defaults() {
    let (_dir, layers) = file(DOCUMENTED);
    let documented = load(&layers).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(documented, Settings::default());
}

/// Names of settings in the documented file, also of those that are commented out: `section.key`.
fn documented_keys() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in DOCUMENTED.lines() {
        let line = line.trim_start_matches('#').trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(|c| c == '[' || c == ']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.insert(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    keys
}

#[test]
fn documented_file_names_every_setting_and_no_other() {
    let documented = documented_keys();
    let mut known: BTreeSet<String> = ["listen", "data_dir", "api_generation"].map(str::to_owned).into();
    for section in SECTIONS {
        known.extend(keys_of(section).into_iter().map(|key| format!("{section}.{key}")));
    }
    let entries =
        ["project", "key", "sdk_keys", "mobile_keys", "client_side_ids"].map(|key| format!("environments.{key}"));
    known.extend(entries);
    known.extend(["token", "role"].map(|key| format!("api_tokens.{key}")));
    // Free tables, shown by examples.
    let free = ["storage.options", "kafka.librdkafka"];
    known.retain(|key| !free.contains(&key.as_str()));
    let in_free = |key: &String| free.iter().any(|table| key.starts_with(&format!("{table}.")));
    let documented: BTreeSet<String> = documented.into_iter().filter(|key| !in_free(key)).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_documented_setting_is_explained() {
    let lines: Vec<&str> = DOCUMENTED.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.contains(" = ") && !line.starts_with('#') {
            let before = lines[number - 1];
            assert!(before.starts_with('#'), "line {}: {line} has no comment above it", number + 1);
        }
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let (_dir, layers) = file(
        r#"
        listen = "somewhere"
        data_dirr = "x"
        [log]
        kind = "paper"
        events_partitions = -1
        segment_bytes = "64"
        [compactor]
        commit_intervall = "10s"
        dedup_window = "1s"
        merge = "yes"
        retention = 30
        [kafka]
        broker = "127.0.0.1:9092"
        replication_factor = -1
        [kafka.librdkafka]
        acks = 1
        "sasl.pasword" = "not-to-be-shown"
        [[environments]]
        project = "p"
        sdk_keys = "sdk-not-to-be-shown"
        [[api_tokens]]
        token = ""
        rolle = "writer"
        "#,
    );
    let found = mistakes(&layers);
    assert_mistake(&found, &["listen = \"somewhere\"", "expected an address with a port"]);
    assert_mistake(&found, &["data_dirr", "did you mean data_dir?"]);
    assert_mistake(&found, &["log.kind = \"paper\"", "`embedded`"]);
    assert_mistake(&found, &["log.events_partitions = -1", "expected a whole number, not negative"]);
    assert_mistake(&found, &["log.segment_bytes = \"64\"", "expected a size with its unit"]);
    assert_mistake(&found, &["compactor.commit_intervall", "did you mean commit_interval?"]);
    assert_mistake(&found, &["compactor.dedup_window", "at least 10m"]);
    assert_mistake(&found, &["compactor.merge = \"yes\"", "expected true or false"]);
    assert_mistake(&found, &["compactor.retention = 30", "expected a duration with its unit"]);
    assert_mistake(&found, &["kafka.broker", "did you mean brokers?"]);
    assert_mistake(&found, &["kafka.replication_factor = -1", "expected a whole number, not negative"]);
    assert_mistake(&found, &["kafka.librdkafka.acks", "is always \"all\""]);
    assert_mistake(&found, &["kafka.librdkafka.sasl.pasword", "librdkafka refuses it"]);
    assert_mistake(&found, &["environments[0].key", "is missing"]);
    assert_mistake(&found, &["environments[0].sdk_keys", "expected a list"]);
    assert_mistake(&found, &["api_tokens[0].rolle", "did you mean role?"]);
    assert!(!found.join("\n").contains("not-to-be-shown"), "{found:#?}");
    assert!(found.iter().all(|mistake| !mistake.contains("sdk-not")));
}

#[test]
fn contradictions_between_settings_are_reported() {
    let (_dir, layers) = file(
        r#"
        [log]
        kind = "kafka"
        [kafka]
        message_timeout = "10s"
        retention = "12m"
        record_bytes_max = "32MiB"
        [storage]
        url = "ftp://bucket/prefix"
        [[environments]]
        project = "p"
        key = "a"
        sdk_keys = ["sdk-00000000-same"]
        [[environments]]
        project = "p"
        key = "b"
        mobile_keys = ["sdk-00000000-same", ""]
        [[environments]]
        project = "p"
        key = "a"
        [[api_tokens]]
        token = "has a blank"
        [[api_tokens]]
        token = "api-00000000-same"
        [[api_tokens]]
        token = "api-00000000-same"
        "#,
    );
    let found = mistakes(&layers);
    assert_mistake(&found, &["kafka.message_timeout = 10s", "less than ingest.append_timeout"]);
    assert_mistake(&found, &["kafka.retention = 12m", "at least compactor.dedup_window, 15m"]);
    assert_mistake(&found, &["kafka.record_bytes_max = 32MiB", "twice ingest.body_bytes_max, 64MiB"]);
    assert_mistake(&found, &["storage.url = \"ftp://bucket/prefix\"", "begins with one of file, s3"]);
    assert_mistake(&found, &["environments[1].mobile_keys[0] = ****same", "already environments[0].sdk_keys[0]"]);
    assert_mistake(&found, &["environments[1].mobile_keys[1]", "expected printable characters"]);
    assert_mistake(&found, &["environments[2]", "p/a is already environments[0]"]);
    assert_mistake(&found, &["api_tokens[0].token", "expected printable characters"]);
    assert_mistake(&found, &["api_tokens[2].token", "already api_tokens[1]"]);
    assert_eq!(found.len(), 9, "{found:#?}");
}

/// The stages know their bounds themselves; the program only gathers what they say.
#[test]
fn every_stage_is_asked() {
    let (_dir, layers) = file(
        r#"
        [ingest]
        idle_timeout = "1s"
        [compactor]
        merge_files_min = 1
        [indexer]
        snapshot_interval = "1ms"
        refresh_interval = "30d"
        memory_budget = "65GiB"
        "#,
    );
    let found = mistakes(&layers);
    assert_mistake(&found, &["ingest.idle_timeout"]);
    assert_mistake(&found, &["compactor.merge_files_min", "at least 2, got 1"]);
    assert_mistake(&found, &["indexer.snapshot_interval", "at least 1s, got 1ms"]);
    assert_mistake(&found, &["indexer.refresh_interval", "at most half of indexer.retention"]);
    assert_mistake(&found, &["indexer.memory_budget", "from 32MiB to 64GiB"]);
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let (_dir, layers) = file("listen = \"127.0.0.1:1\"\n[compactor]\ncommit_interval = \"1s\"\nmerge = true\n");
    let mut layers = with_variables(
        layers,
        &[
            ("TIDEGATE__LISTEN", "127.0.0.1:2"),
            ("TIDEGATE__COMPACTOR__COMMIT_INTERVAL", "2s"),
            ("TIDEGATE__COMPACTOR__MERGE", "false"),
            ("TIDEGATE__LOG__EVENTS_PARTITIONS", "7"),
            ("TIDEGATE__ENVIRONMENTS", r#"[{project = "p", key = "e", sdk_keys = ["sdk-1"]}]"#),
            ("TIDEGATE__STORAGE__OPTIONS__SOME_OPTION", "text"),
            ("TIDEGATE_LOG", "debug"),
            ("PATH", "/bin"),
        ],
    );
    let settings = load(&layers).unwrap();
    assert_eq!(settings.listen.port(), 2);
    assert_eq!(settings.compactor.commit_interval.to_string(), "2s");
    assert!(!settings.compactor.merge);
    assert_eq!(settings.log.events_partitions, 7);
    assert_eq!(settings.environments[0].sdk_keys, ["sdk-1"]);
    assert_eq!(settings.storage.options["some_option"], "text");

    layers.flags.push(Flag { name: "listen", path: "listen", value: "127.0.0.1:3".into() });
    assert_eq!(load(&layers).unwrap().listen.port(), 3);
}

#[test]
fn settings_of_librdkafka_come_with_dots_or_underscores_and_variables_win() {
    let (_dir, layers) = file(
        "[kafka.librdkafka]\nsecurity.protocol = \"ssl\"\n\"sasl.password\" = \"from the file\"\nlinger_ms = 3\n\"socket.keepalive.enable\" = false\n",
    );
    let layers = with_variables(layers, &[("TIDEGATE__KAFKA__LIBRDKAFKA__SASL_PASSWORD", "from the environment")]);
    let passed = load(&layers).unwrap().kafka.librdkafka.0;
    let expected = [
        ("linger.ms", "3"),
        ("sasl.password", "from the environment"),
        ("security.protocol", "ssl"),
        ("socket.keepalive.enable", "false"),
    ];
    assert_eq!(passed.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
}

#[test]
fn mistakes_name_their_origin() {
    let (_dir, layers) = file("[log]\nsegment_bytes = \"many\"\n");
    let mut layers = with_variables(layers, &[("TIDEGATE__COMPACTOR__NO_SUCH", "1"), ("TIDEGATE__LOG__KIND", "x")]);
    layers.flags.push(Flag { name: "listen", path: "listen", value: "x".into() });
    let found = mistakes(&layers);
    assert_mistake(&found, &["log.segment_bytes", "pipeline.toml"]);
    assert_mistake(&found, &["compactor.no_such", "environment variable TIDEGATE__COMPACTOR__NO_SUCH"]);
    assert_mistake(&found, &["log.kind", "environment variable TIDEGATE__LOG__KIND"]);
    assert_mistake(&found, &["listen", "flag --listen"]);
}

#[test]
fn syntax_error_names_the_place_and_not_the_text() {
    let (_dir, layers) = file("listen = \"127.0.0.1:1\"\n[[api_tokens]]\ntoken = \"api-not-to-be-shown\n");
    let found = mistakes(&layers);
    assert_mistake(&found, &["line 3", "is not TOML"]);
    assert!(!found[0].contains("not-to-be-shown"), "{found:?}");
    let absent = Layers { file: Some(Path::new("/nonexistent/pipeline.toml").into()), ..Layers::default() };
    assert_mistake(&mistakes(&absent), &["/nonexistent/pipeline.toml", "cannot be read"]);
}

#[test]
fn renamed_setting_answers_with_its_new_name() {
    let path = ["compactor".to_owned(), "interval".to_owned()];
    let found = check(&path, &toml::Value::String("1s".into()), &[("compactor.interval", "compactor.commit_interval")]);
    assert_eq!(found[0].2, "is called compactor.commit_interval now");
}

#[test]
fn lists_and_sections_of_wrong_shape_are_explained() {
    let (_dir, layers) = file("log = 3\nenvironments = \"x\"\nunknown_thing = 1\n[api_tokens]\ntoken = \"t\"\n");
    let found = mistakes(&layers);
    assert_mistake(&found, &["log = 3", "written [log]"]);
    for list in LISTS {
        assert_mistake(&found, &[list, &format!("written [[{list}]]")]);
    }
    assert_mistake(&found, &["unknown_thing", "there is no such setting"]);
}

#[test]
fn printed_configuration_masks_secrets() {
    let mut settings = Settings::default();
    settings.environments.push(events::EnvironmentConfig {
        project: "p".into(),
        key: "e".into(),
        sdk_keys: vec!["sdk-00000000-0000-4000-8000-00000000000a".into()],
        mobile_keys: vec!["short".into()],
        client_side_ids: vec!["0000000000000000000000aa".into()],
    });
    settings
        .api_tokens
        .push(ApiTokenConfig { token: "api-00000000-0000-4000-8000-0000000000bb".into(), role: Role::Writer });
    settings.storage.options.insert("aws_secret_access_key".into(), "fake-fake-fake".into());
    for (name, value) in
        [("sasl.password", "fake-fake-kafka"), ("sasl.username", "a-user"), ("ssl.key.pem", "fake-fake-pem0")]
    {
        settings.kafka.librdkafka.0.insert(name.into(), value.into());
    }
    let printed = settings.to_masked_toml().unwrap();
    for shown in [
        "\"****afka\"",
        "a-user",
        "\"****pem0\"",
        "\"****000a\"",
        "\"****\"",
        "\"****00bb\"",
        "\"****fake\"",
        "0000000000000000000000aa",
    ] {
        assert!(printed.contains(shown), "{shown} not in {printed}");
    }
    for hidden in ["sdk-0000", "short", "api-0000", "fake-fake"] {
        assert!(!printed.contains(hidden), "{hidden} in {printed}");
    }
    assert!(!format!("{:?}", settings.kafka).contains("fake-fake"));
    assert!(!format!("{settings:?}").contains("api-0000") && !format!("{settings:?}").contains("sdk-0000"));
    // Without secrets, what is printed is a configuration.
    let (_dir, layers) = file(&Settings::default().to_masked_toml().unwrap());
    assert_eq!(load(&layers).unwrap(), Settings::default());
}
