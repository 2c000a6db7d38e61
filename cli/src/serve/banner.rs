//! What a person sees on standard output at the start: where to look and, for development, the keys.

use std::io::Write;
use std::net::SocketAddr;

use runtime::UnixMicros;

use crate::config::{Role, Settings};
use crate::dev_keys::{self, DevKeys};
use crate::endpoints::setup;

/// Only keys made for development are printed; configured ones are known to whoever configured them.
pub fn print(settings: &Settings, address: SocketAddr, keys: Option<&DevKeys>, now: UnixMicros) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    if let Some(keys) = keys {
        out.write_all(development(settings, address, keys, now).as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

fn development(settings: &Settings, address: SocketAddr, keys: &DevKeys, now: UnixMicros) -> String {
    let url = format!("http://{address}");
    let environment = &keys.environments[0];
    let sdk_key = environment.sdk_keys.first().map_or("", String::as_str);
    let token = |role| keys.api_tokens.iter().find(|token| token.role == role).map_or("", |token| token.token.as_str());
    let sdk = setup::sdk_lines(&url, sdk_key);
    let line =
        |language: &str| sdk[language].as_str().and_then(|text| text.lines().last()).unwrap_or_default().to_owned();
    let file = settings.data_dir.join(dev_keys::FILE_NAME);
    format!(
        "\nDevelopment environment {}/{}, keys kept in {}:\n\
         \x20 SDK key         {sdk_key}\n\
         \x20 mobile key      {}\n\
         \x20 client-side id  {}\n\
         \x20 API token       {} (writer)\n\
         \x20                 {} (reader)\n\
         \nSend a first event:\n  {}\n\
         \nOr point an SDK at this server:\n  Python  {}\n  Node    {}\n\
         \nThen look at {url}/ with an API token.\n\n",
        environment.project,
        environment.key,
        file.display(),
        environment.mobile_keys.first().map_or("", String::as_str),
        environment.client_side_ids.first().map_or("", String::as_str),
        token(Role::Writer),
        token(Role::Reader),
        setup::curl(&url, sdk_key, now),
        line("python"),
        line("node"),
    )
}
