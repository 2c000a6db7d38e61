//! One connection of a client, and the request that it sends again and again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::bodies;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect(address).await?)
    }

    /// Connects to an IPv4 address from a source address of its own.
    ///
    /// With one source for all, thousands of short connections use up its ports, and the kernel's search for a free one
    /// takes more time than the requests.
    pub async fn open_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let yes: libc::c_int = 1;
        // SAFETY: an open socket of ours and a pointer to an int of the size that is stated.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_BIND_ADDRESS_NO_PORT,
                (&raw const yes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        socket.bind((source, 0).into())?;
        Self::of(socket.connect(address).await?)
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(512) })
    }

    /// Whether the server has neither closed it nor sent anything unasked.
    pub fn is_open(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and gives the status of its answer.
    ///
    /// # Errors
    /// If the connection breaks before the answer is whole.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.send(request).await?;
        self.read_answer().await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads one answer with a `content-length` (or none, with an empty body) and gives its status.
    pub async fn read_answer(&mut self) -> io::Result<u16> {
        self.answer.clear();
        let head = loop {
            if let Some(end) = self.answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await?;
        };
        let text = String::from_utf8_lossy(&self.answer[..head]).to_ascii_lowercase();
        let status = text.get(9..12).and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status line"))?;
        let length = text.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
        let length = length.and_then(|digits| digits.trim().parse().ok()).unwrap_or(0);
        while self.answer.len() < head + length {
            self.read_more().await?;
        }
        Ok(status)
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A request's bytes and the places that change.
#[derive(Clone)]
pub struct Template {
    pub bytes: Vec<u8>,
    payload_id: usize,
    /// Where four digits of a context key stand.
    keys: Vec<usize>,
}

impl Template {
    /// `vary`: each request gets contexts of its own.
    pub fn new(key: &str, body: &[u8], vary: bool) -> Self {
        let head = format!(
            "POST /bulk HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\nContent-Length: {}\r\nAuthorization: {key}\r\n\
             User-Agent: PythonClient/9.17.0\r\nX-LaunchDarkly-Instance-Id: 13e3c8cc-87db-4d95-8daa-d66d91a2bc66\r\n\
             X-LaunchDarkly-Tags: application-id/checkout-web application-version/2026.11.3-rc.1\r\nContent-Type: application/json\r\n\
             X-LaunchDarkly-Event-Schema: 4\r\nX-LaunchDarkly-Payload-ID: 00000000-0000-4000-8000-000000000000\r\n\r\n",
            body.len()
        );
        let payload_id = head.rfind("00000000-0000-4000").expect("in the head above");
        let bytes = [head.as_bytes(), body].concat();
        let keys = if vary { bodies::digits_after(&bytes, b"user-") } else { Vec::new() };
        Self { bytes, payload_id, keys }
    }

    /// Writes an id, and with it other contexts, into `request`, a copy of [`Self::bytes`]. Gives the id's text.
    pub fn fill<'a>(&self, request: &'a mut [u8], id: u128, number: usize) -> &'a str {
        bodies::vary(&self.bytes, &self.keys, number, request);
        self.fill_id(request, id)
    }

    /// Writes an id alone; `request` may end after the head.
    pub fn fill_id<'a>(&self, request: &'a mut [u8], id: u128) -> &'a str {
        let id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid();
        id.hyphenated().encode_lower(&mut request[self.payload_id..self.payload_id + 36])
    }
}
