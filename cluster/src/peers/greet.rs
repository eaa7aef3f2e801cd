//! How two nodes make themselves known: each says who it is, each judges the other.

use tokio::time::timeout;

use super::framing::{Ended, FrameReader, FrameWriter};
use super::registry::{Side, Ticket};
use super::wire::{Greeting, MAGIC, PROTOCOLS, pack, reason_of, refusal, unpack};
use super::{Common, Hello, Lane};
use crate::limits::{
    PEER_ABOUT_BYTES_MAX, PEER_ADDRESS_BYTES_MAX, PEER_HELLO_BYTES_MAX, PEER_STRANGER_BYTES_MAX, PEER_STRANGER_MS,
};
use crate::ports::network::Stream;

/// What a browser is shown.
const NOT_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    This port is for the nodes of a proffer cluster, not for HTTP.\n";

/// A connection to a node that is known.
pub(super) struct Met {
    pub(super) hello: Hello,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    pub(super) ticket: Ticket,
}

/// Says who we are to the node that was dialled, which must be `expected` if that is known.
pub(super) async fn introduce(
    common: &Common,
    stream: Stream,
    lane: Lane,
    expected: Option<u64>,
) -> Result<Met, Ended> {
    let (mut reader, mut writer) = split(common, stream);
    writer.write(&[&MAGIC[..], &common.hello(lane).pack()].concat()).await?;
    writer.flush().await?;
    let mut magic = [0; MAGIC.len()];
    reader.exactly(&mut magic).await?;
    if magic != MAGIC {
        return Err(Ended::Breach("this is no port of proffer's nodes".to_owned()));
    }
    let hello = listen(&mut reader).await?;
    let judged = match expected {
        Some(expected) if hello.node != expected => Err(format!("this is node {}, not {expected}", hello.node)),
        Some(_) | None if hello.lane != lane => Err("this is the answer of another lane".to_owned()),
        Some(_) | None => judge(common, &hello).and_then(|()| common.registry.enter(&hello, Side::Ours)),
    };
    match judged {
        Ok(ticket) => {
            writer.write(&pack(&Greeting::Accepted, &[])).await?;
            writer.flush().await?;
            Ok(Met { hello, reader, writer, ticket })
        }
        Err(reason) => Err(refuse(&mut writer, &refusal(&reason), reason).await),
    }
}

/// Hears who dialled, and answers.
pub(super) async fn receive(common: &Common, stream: Stream) -> Result<Met, Ended> {
    let (mut reader, mut writer) = split(common, stream);
    match timeout(common.config.dial_within, meet(common, &mut reader, &mut writer)).await {
        Ok(Ok((hello, ticket))) => Ok(Met { hello, reader, writer, ticket }),
        Ok(Err(ended)) => {
            if matches!(ended, Ended::Refused(_) | Ended::Breach(_)) {
                // A connection closed with bytes unread is reset, and the reason would be lost.
                let patience = std::time::Duration::from_millis(PEER_STRANGER_MS);
                let _ = timeout(patience, reader.forget(PEER_STRANGER_BYTES_MAX)).await;
            }
            Err(ended)
        }
        Err(_) => Err(Ended::Silent(common.config.dial_within)),
    }
}

async fn meet(common: &Common, reader: &mut FrameReader, writer: &mut FrameWriter) -> Result<(Hello, Ticket), Ended> {
    let mut magic = [0; MAGIC.len()];
    reader.exactly(&mut magic).await?;
    if magic != MAGIC {
        writer.write(NOT_HTTP.as_bytes()).await?;
        writer.flush().await?;
        writer.close().await?;
        return Err(Ended::Breach("not a node of ours, perhaps a browser".to_owned()));
    }
    let hello = listen(reader).await?;
    if let Err(reason) = judge(common, &hello) {
        let told = [&MAGIC[..], &refusal(&reason)].concat();
        let reason = format!("node {} at {}: {reason}", hello.node, reason_of(hello.address.as_bytes()));
        return Err(refuse(writer, &told, reason).await);
    }
    writer.write(&[&MAGIC[..], &common.hello(hello.lane).pack()].concat()).await?;
    writer.flush().await?;
    let frame = reader.next(PEER_HELLO_BYTES_MAX).await?;
    let (greeting, body) = unpack(frame).map_err(|error| Ended::Breach(error.to_string()))?;
    match greeting {
        // Not before: whoever looks for another node at this address turns away now, and must not have taken the place of a connection that is sound.
        Greeting::Accepted => match common.registry.enter(&hello, Side::Theirs) {
            Ok(ticket) => Ok((hello, ticket)),
            Err(reason) => Err(Ended::Refused(format!("node {}: {reason}", hello.node))),
        },
        Greeting::Refused => Err(Ended::Refused(format!("node {} says: {}", hello.node, reason_of(&body)))),
        Greeting::Hello(_) => Err(Ended::Breach("a second hello".to_owned())),
    }
}

async fn listen(reader: &mut FrameReader) -> Result<Hello, Ended> {
    let frame = reader.next(PEER_HELLO_BYTES_MAX).await?;
    let (greeting, body) = unpack(frame).map_err(|error| Ended::Breach(error.to_string()))?;
    match greeting {
        Greeting::Hello(introduction) => {
            Hello::read(introduction, body).map_err(|error| Ended::Breach(error.to_string()))
        }
        Greeting::Refused => Err(Ended::Refused(format!("the other side says: {}", reason_of(&body)))),
        Greeting::Accepted => Err(Ended::Breach("accepted before a hello".to_owned())),
    }
}

async fn refuse(writer: &mut FrameWriter, told: &[u8], reason: String) -> Ended {
    let telling = async {
        writer.write(told).await?;
        writer.flush().await?;
        writer.close().await
    };
    match telling.await {
        Ok(()) => Ended::Refused(reason),
        Err(ended) => Ended::Refused(format!("{reason} (and could not say so: {ended})")),
    }
}

fn judge(common: &Common, hello: &Hello) -> Result<(), String> {
    let (lowest, highest) = PROTOCOLS;
    if hello.lowest > highest || hello.highest < lowest {
        return Err(format!(
            "protocol {lowest} to {highest} is spoken here, {} to {} there: upgrade the older node",
            hello.lowest, hello.highest
        ));
    }
    let config = &common.config;
    if let (Some(here), Some(there)) = (config.cluster, hello.cluster)
        && here != there
    {
        return Err("two different clusters".to_owned());
    }
    if hello.cluster.is_none() && hello.node != 0 {
        return Err(format!("node {} says no cluster: an id is given by one", hello.node));
    }
    if hello.address.len() > PEER_ADDRESS_BYTES_MAX || hello.about.len() > PEER_ABOUT_BYTES_MAX {
        return Err("the hello is too long".to_owned());
    }
    if hello.nonce == common.nonce {
        return Err(format!("this is node {} itself: is its own address given as another's?", config.node));
    }
    if hello.node == config.node {
        return Err(format!("both are node {}: an id is given once", config.node));
    }
    common.gatekeeper.judge(hello, common.registry.has_met(hello))?;
    common.registry.meet(hello)
}

fn split(common: &Common, stream: Stream) -> (FrameReader, FrameWriter) {
    let (reader, writer) = tokio::io::split(stream);
    let silence = common.config.silence;
    (FrameReader::new(reader, silence), FrameWriter::new(writer, silence))
}
