//! Paths, credentials, encodings, cross-origin headers: what each sender of event protocol section 1 does.

use std::io::Write;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;

use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_path_takes_its_senders_form() {
    let door = Door::open().await;
    let mut stored = 0;
    for (path, credential) in [
        ("/bulk".to_owned(), format!("Authorization: {SDK_KEY}\r\n")),
        ("/bulk".to_owned(), format!("Authorization: api_key {SDK_KEY}\r\n")),
        ("/diagnostic".to_owned(), format!("Authorization: Bearer {SDK_KEY}\r\n")),
        ("/mobile".to_owned(), format!("Authorization: {MOBILE_KEY}\r\n")),
        ("/mobile/events".to_owned(), format!("authorization: {MOBILE_KEY}\r\n")),
        ("/mobile/events/bulk".to_owned(), format!("Authorization: api_key {MOBILE_KEY}\r\n")),
        ("/mobile/events/diagnostic".to_owned(), format!("Authorization: {MOBILE_KEY}\r\n")),
        (format!("/events/bulk/{CLIENT_ID}"), String::new()),
        (format!("/events/bulk/{CLIENT_ID}"), format!("Authorization: {CLIENT_ID}\r\n")),
        (format!("/events/diagnostic/{CLIENT_ID}"), String::new()),
        ("/v2/event-data-import/shop/prod".to_owned(), format!("Authorization: {TOKEN}\r\n")),
    ] {
        let body = if path.contains("diagnostic") { DIAGNOSTIC } else { CUSTOM };
        for path in [path.clone(), format!("{path}/"), format!("/relay/ld{path}"), format!("{path}?filter=x")] {
            let mut client = door.connect().await;
            let plain = post(&path, &credential, body);
            let packed = post(&path, &format!("{credential}Content-Encoding: gzip\r\n"), gzip(body.as_bytes()));
            let zstd = post(
                &path,
                &format!("{credential}Content-Encoding: zstd\r\n"),
                zstd::bulk::compress(body.as_bytes(), 1).unwrap(),
            );
            let chunked = format!(
                "POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n{credential}\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                &body[..5],
                body.len() - 5,
                &body[5..]
            );
            for request in [plain, packed, zstd, chunked.into_bytes()] {
                let reply = client.send(&request).await;
                assert_eq!((reply.status, reply.body.len()), (202, 0), "{path} {}", String::from_utf8_lossy(&request));
                assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")));
                stored += 1;
            }
        }
    }
    assert_eq!(door.payloads().await.len(), stored);
    assert_eq!(door.letters().await, []);
    door.close().await;
}

#[tokio::test]
async fn body_is_asked_for_at_once() {
    let door = Door::open().await;
    let mut client = door.connect().await;
    let request = post("/bulk", &format!("{}Expect: 100-continue\r\n", sdk()), CUSTOM);
    let (head, body) = request.split_at(request.len() - CUSTOM.len());
    assert_eq!(client.send(head).await.status, 100);
    assert_eq!(client.send(body).await.status, 202);
    // Who has no business here is not asked, and told at once.
    let request = post("/bulk", "Authorization: sdk-other\r\nExpect: 100-continue\r\n", CUSTOM);
    assert_eq!(client.send(&request[..request.len() - CUSTOM.len()]).await.status, 401);
    door.close().await;
}

#[tokio::test]
async fn http2_without_negotiation() {
    let door = Door::open().await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |id: &str| {
        Request::post(format!("http://{}/bulk", door.address))
            .header("authorization", SDK_KEY)
            .header("x-launchdarkly-payload-id", id)
            .body(Full::new(Bytes::from(CUSTOM)))
            .unwrap()
    };
    let replies = futures::future::join_all((0..50).map(|n| sender.send_request(request(&n.to_string())))).await;
    for reply in replies {
        let reply = reply.unwrap();
        assert_eq!(reply.status(), 202);
        assert!(reply.headers().contains_key("date"));
        assert!(reply.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    assert_eq!(door.payloads().await.len(), 50);
    door.close().await;
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn misrouted_diagnostics_land_in_diagnostics() {
    let door = Door::open().await;
    let flutter = format!("Authorization: {MOBILE_KEY}\r\nX-LaunchDarkly-Event-Schema: 4\r\n");
    assert_eq!(door.post("/mobile", &flutter, DIAGNOSTIC).await.status, 202);
    assert_eq!(door.post("/bulk", &format!("Authorization: {SDK_KEY}\r\n"), DIAGNOSTIC).await.status, 202);
    assert!(door.kinds().await.iter().all(|(kind, _)| *kind == EventKind::Diagnostic));
    assert_eq!(door.payloads().await.len(), 2);
    assert_eq!(door.ingest.status().sdk_dropped_events_total, 6);
    door.close().await;
}

#[tokio::test]
async fn pixels_in_three_places_and_two_alphabets() {
    let door = Door::open().await;
    let events = r#"[{"kind":"custom","creationDate":1760000000000,"key":"k?>","userKey":"u~~~","data":"???>>>"}]"#;
    let forms = [BASE64_URL_SAFE_NO_PAD.encode(events), BASE64_STANDARD.encode(events)];
    let places = ["", &format!("/events/bulk/{CLIENT_ID}"), &format!("/events/diagnostic/{CLIENT_ID}")];
    for place in places {
        for form in &forms {
            let reply = door.send(format!("GET {place}/a/{CLIENT_ID}.gif?d={form} HTTP/1.1\r\nHost: t\r\n\r\n")).await;
            assert_eq!(
                (reply.status, reply.header("content-type"), reply.header("cache-control")),
                (200, Some("image/gif"), Some("no-store"))
            );
            assert!(reply.body.starts_with(b"GIF89a") && reply.body.ends_with(b";"));
        }
    }
    assert_eq!(door.payloads().await.len(), 6);
    for garbage in ["?d=!!!", "?d=", "", "?d=e30x"] {
        let reply = door.send(format!("GET /a/{CLIENT_ID}.gif{garbage} HTTP/1.1\r\nHost: t\r\n\r\n")).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("*")), "{garbage}");
    }
    let reply = door.send("GET /a/unknown.gif?d=W10 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    let reasons: Vec<String> = door.letters().await.into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, ["bad_encoding", "invalid_json"]);
    door.close().await;
}

#[tokio::test]
async fn long_request_lines_are_read() {
    let door = Door::open().await;
    let event = format!(r#"[{{"kind":"custom","creationDate":1,"key":"{}","userKey":"u"}}]"#, "k".repeat(48_000));
    let query = BASE64_URL_SAFE_NO_PAD.encode(event);
    assert!(query.len() > 64_000);
    let reply = door.send(format!("GET /a/{CLIENT_ID}.gif?d={query} HTTP/1.1\r\nHost: t\r\n\r\n")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(door.payloads().await.len(), 1);
    door.close().await;
}

#[tokio::test]
async fn browsers_may_read_every_answer() {
    let door = Door::open().await;
    let browser = format!("/events/bulk/{CLIENT_ID}");
    let preflight = format!(
        "OPTIONS {browser} HTTP/1.1\r\nHost: t\r\nOrigin: https://shop.example\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: content-type,x-brand-new\r\n\r\n"
    );
    let reply = door.send(preflight).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert!(reply.header("access-control-allow-headers").unwrap().ends_with("content-type,x-brand-new"));
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST, OPTIONS"));
    assert_eq!(reply.header("access-control-max-age"), Some("300"));
    let origin = "Origin: https://shop.example\r\n";
    for (path, headers, body, status) in [
        (browser.as_str(), "", CUSTOM, 202),
        (&browser, "", "hello", 400),
        (&browser, "Content-Encoding: br\r\n", "x", 400),
        ("/events/bulk/unknown", "", CUSTOM, 404),
        ("/events/diagnostic/unknown", "", "{}", 404),
    ] {
        let reply = door.post(path, &format!("{origin}{headers}"), body).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://shop.example"), "{path}");
        assert_eq!(reply.header("access-control-expose-headers"), Some("Date"));
        assert_eq!(reply.header("vary"), Some("Origin"));
        assert!(reply.header("date").is_some());
    }
    let reply = door.send(format!("PUT {browser} HTTP/1.1\r\nHost: t\r\n{origin}\r\n")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST, OPTIONS")));
    assert!(reply.header("access-control-allow-origin").is_some());
    let goals = door.send(format!("GET /sdk/goals/{CLIENT_ID} HTTP/1.1\r\nHost: t\r\n\r\n")).await;
    assert_eq!(
        (goals.status, goals.body.as_slice(), goals.header("access-control-allow-origin")),
        (200, &b"[]"[..], Some("*"))
    );
    let reply = door.post("/bulk", &sdk(), CUSTOM).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    door.close().await;
}

#[tokio::test]
async fn credentials_decide() {
    let door = Door::open().await;
    for (path, credential, status) in [
        ("/bulk", "", 401),
        ("/bulk", "Authorization: sdk-other\r\n", 401),
        ("/bulk", &format!("Authorization: {MOBILE_KEY}\r\n"), 401),
        ("/mobile", &format!("Authorization: {SDK_KEY}\r\n"), 401),
        ("/diagnostic", "Authorization: sdk-other\r\n", 401),
        ("/v2/event-data-import/shop/prod", &format!("Authorization: {SDK_KEY}\r\n"), 401),
        ("/v2/event-data-import/shop/prod", "Authorization: api-fake-reader\r\n", 403),
        ("/v2/event-data-import/shop/none", &format!("Authorization: {TOKEN}\r\n"), 404),
    ] {
        // A large body is read to its end, or the client would not see the answer.
        let reply = door.post(path, credential, "x".repeat(3_000_000)).await;
        assert_eq!(reply.status, status, "{path} {credential}");
        assert!(reply.json()["code"].is_string() && reply.json()["message"].is_string());
    }
    assert_eq!(door.payloads().await, []);
    door.close().await;
}

#[tokio::test]
async fn other_paths_go_to_the_fallback() {
    let door = Door::open().await;
    let reply = door.send("GET /api/v2/projects HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!((reply.status, reply.body.as_slice()), (418, &b"/api/v2/projects"[..]));
    assert_eq!(door.send("GET /bulk HTTP/1.1\r\nHost: t\r\n\r\n").await.header("allow"), Some("POST"));
    door.close().await;
}

#[tokio::test]
async fn bodies_that_hold_nothing() {
    let door = Door::open().await;
    for body in ["", "[]"] {
        assert_eq!(door.post("/bulk", &with_id("e"), body).await.status, 202);
    }
    assert_eq!(door.post("/bulk", &format!("{}Content-Encoding: gzip\r\n", sdk()), gzip(b"")).await.status, 202);
    assert_eq!(door.payloads().await, []);
    door.close().await;
}

#[tokio::test]
async fn unreadable_bodies_are_explained_and_kept() {
    let door = Door::open().await;
    let reply = door.post("/bulk", &sdk(), r#"[{"kind":"custom""#).await;
    assert_eq!((reply.status, &reply.json()["code"]), (400, &"invalid_json".into()));
    assert!(reply.json()["message"].as_str().unwrap().contains("17"), "{}", reply.json());
    assert_eq!(door.post("/bulk", &format!("{}Content-Encoding: br\r\n", sdk()), "xyz").await.status, 400);
    let truncated = &gzip(CUSTOM.as_bytes())[..40];
    assert_eq!(door.post("/bulk", &format!("{}Content-Encoding: gzip\r\n", sdk()), truncated).await.status, 400);
    let letters = door.letters().await;
    let reasons: Vec<&str> = letters.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["invalid_json", "bad_encoding", "bad_encoding"]);
    assert_eq!((letters[1].1.as_slice(), letters[2].1.as_slice()), (&b"xyz"[..], truncated));
    // Of a diagnostic nothing is said: a 4xx would end the sender's events, too.
    assert_eq!(door.post("/diagnostic", &sdk(), "{").await.status, 202);
    assert_eq!(door.letters().await.len(), 4);
    assert_eq!(door.ingest.status().dead_letters_total["bad_encoding"], 2);
    door.close().await;
}

#[tokio::test]
async fn body_that_ends_early_is_not_stored() {
    let door = Door::open().await;
    let mut client = door.connect().await;
    let request = post("/bulk", &sdk(), CUSTOM);
    client.write(&request[..request.len() - 1]).await;
    client.0.shutdown().await.unwrap();
    client.ends().await;
    assert_eq!(door.payloads().await, []);
    door.close().await;
}
