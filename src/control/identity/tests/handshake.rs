//! Handshakes in memory: who gets in, who is refused with which words, and what becomes of changed and missing bytes.

use super::super::key::Role;
use super::super::tls::{ALPN, certified, server_name};
use super::*;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, ConnectionCommon, HandshakeKind, ServerConnection, SideData, SignatureScheme};
use std::io::{Read, Write};

const HOST: &str = "host";
const PORT: u16 = 9000;
/// What each end says as soon as it may.
const WORD: &[u8] = b"word";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    ToServer,
    ToClient,
}

/// Both ends, and all that went between them.
struct Meeting {
    client: ClientConnection,
    server: ServerConnection,
    sent_to_server: Vec<u8>,
    sent_to_client: Vec<u8>,
    client_error: Option<HandshakeError>,
    server_error: Option<HandshakeError>,
}

impl Meeting {
    fn new(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Self {
        let mut client = ClientConnection::new(client, server_name()).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        client.writer().write_all(WORD).unwrap();
        server.writer().write_all(WORD).unwrap();
        Self {
            client,
            server,
            sent_to_server: Vec::new(),
            sent_to_client: Vec::new(),
            client_error: None,
            server_error: None,
        }
    }

    /// Until nobody has any more to say. `tamper` is given each flight, how many bytes went before it that way, and which
    /// way it goes.
    fn run(mut self, tamper: impl Fn(Way, usize, &mut Vec<u8>)) -> Self {
        loop {
            let to_server = carry(&mut self.client, &mut self.sent_to_server, |before, bytes| {
                tamper(Way::ToServer, before, bytes);
            });
            hear(&mut self.server, &to_server, &mut self.server_error);
            let to_client = carry(&mut self.server, &mut self.sent_to_client, |before, bytes| {
                tamper(Way::ToClient, before, bytes);
            });
            hear(&mut self.client, &to_client, &mut self.client_error);
            if to_server.is_empty() && to_client.is_empty() {
                return self;
            }
        }
    }

    /// What the client and the server have heard of each other's word.
    fn heard(&mut self) -> (bool, bool) {
        (word(&mut self.client), word(&mut self.server))
    }

    fn bytes(&self, way: Way) -> &[u8] {
        match way {
            Way::ToServer => &self.sent_to_server,
            Way::ToClient => &self.sent_to_client,
        }
    }
}

fn carry<S: SideData>(
    from: &mut ConnectionCommon<S>,
    sent: &mut Vec<u8>,
    tamper: impl FnOnce(usize, &mut Vec<u8>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let before = sent.len();
    sent.extend_from_slice(&bytes);
    tamper(before, &mut bytes);
    bytes
}

fn hear<S: SideData>(to: &mut ConnectionCommon<S>, mut bytes: &[u8], error: &mut Option<HandshakeError>) {
    while !bytes.is_empty() && error.is_none() {
        to.read_tls(&mut bytes).unwrap();
        *error = to.process_new_packets().err().map(|failed| HandshakeError::from(&failed));
    }
}

fn word<S: SideData>(at: &mut ConnectionCommon<S>) -> bool {
    let mut heard = [0; WORD.len()];
    at.reader().read_exact(&mut heard).is_ok() && heard == WORD
}

fn meet(client: &Home, server: &Home) -> Meeting {
    let (client, server) = (client.client().client_config(HOST, PORT), server.server().server_config());
    Meeting::new(client, server).run(|_, _, _| ())
}

fn secrets<const N: usize>() -> [Secret; N] {
    std::array::from_fn(|_| Secret::random())
}

fn lets_in(client: &Home, server: &Home, address: &str) -> Result<Grant, Denied> {
    let mut meeting = meet(client, server);
    assert_eq!((meeting.client_error.clone(), meeting.server_error.clone()), (None, None));
    assert_eq!(meeting.heard(), (true, true));
    assert_eq!(client.client().confirm(&meeting.client), Ok(()));
    server.server().grant(&meeting.server, address.parse().unwrap())
}

#[test]
fn who_has_the_same_key_file_gets_in_without_conditions() {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    let want =
        Grant { key: secret.public().client, root: None, read_only: false, no_delete: false, sessions_max: None };
    assert_eq!(lets_in(&home, &Home::new(&[&secret]), "192.0.2.1"), Ok(want));
}

#[test]
fn a_handshake_is_what_the_specification_says() {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    let meeting = meet(&home, &home);
    let mut exported = [[0; 32]; 2];
    meeting.client.export_keying_material(&mut exported[0], b"label", None).unwrap();
    meeting.server.export_keying_material(&mut exported[1], b"label", None).unwrap();
    assert_eq!(exported[0], exported[1]);
    for end in [&*meeting.client as &CommonState, &*meeting.server] {
        assert_eq!(end.alpn_protocol(), Some(ALPN));
        assert_eq!(end.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(format!("{:?}", end.negotiated_key_exchange_group().unwrap().name()), "X25519MLKEM768");
        assert_eq!(format!("{:?}", end.negotiated_cipher_suite().unwrap().suite()), "TLS13_AES_256_GCM_SHA384");
    }
    assert_eq!(meeting.client.tls13_tickets_received(), 0);
    // What a server reads before it trusts: see the limit on it.
    assert!(meeting.sent_to_server.len() < 4096, "{}", meeting.sent_to_server.len());
    // No name of the server, and no key, is in the clear.
    let public = secret.public();
    for bytes in [&meeting.sent_to_server, &meeting.sent_to_client] {
        for hidden in [HOST.as_bytes(), b"pdcp\0", &public.client.spki()[12..], &public.server.spki()[12..]] {
            assert!(!bytes.windows(hidden.len()).any(|window| window == hidden));
        }
    }
}

#[test]
fn a_key_is_replaced_without_a_day_of_darkness() {
    let [old, new] = secrets();
    let (first, second, third) = (Home::new(&[&old]), Home::new(&[&old, &new]), Home::new(&[&new, &old]));
    let last = Home::new(&[&new]);
    for step in [[&first, &second], [&second, &third], [&third, &last]] {
        for (client, server) in [(step[0], step[1]), (step[1], step[0]), (step[1], step[1])] {
            assert!(lets_in(client, server, "::1").is_ok());
        }
    }
    assert_eq!(meet(&first, &last).client_error.map(|error| matches!(error, HandshakeError::Stranger(_))), Some(true));
}

/// A client and a server of different users who know each other.
fn acquainted(conditions: &str) -> (Home, Home, PublicKey) {
    let [client_secret, server_secret] = secrets();
    let (client, server) = (Home::new(&[&client_secret]), Home::new(&[&server_secret]));
    server.write("authorized_keys", &format!("{conditions} {}\n", client_secret.public()));
    client.write("known_servers", &format!("{HOST}:{PORT} {}\n", server_secret.public()));
    (client, server, client_secret.public())
}

#[test]
fn a_guest_gets_in_with_the_conditions_of_its_line() {
    let conditions = "ro nodelete root=/srv max-sessions=2 from=10.0.0.0/8";
    let (client, server, key) = acquainted(conditions);
    let want =
        Grant { key: key.client, root: Some("/srv".into()), read_only: true, no_delete: true, sessions_max: Some(2) };
    for address in ["10.1.2.3", "::ffff:10.1.2.3"] {
        assert_eq!(lets_in(&client, &server, address), Ok(want.clone()));
    }
    for address in ["11.1.2.3", "::1", "::ffff:11.1.2.3"] {
        let denied = lets_in(&client, &server, address).unwrap_err();
        assert_eq!(denied.key, Some(key.fingerprint()));
        assert!(denied.text.contains("from this address"), "{denied:?}");
    }
}

#[test]
fn a_line_for_a_key_of_ones_own_counts() {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    home.write("authorized_keys", &format!("ro {}\n", secret.public()));
    assert!(lets_in(&home, &home, "::1").unwrap().read_only);
}

#[test]
fn strangers_are_refused_and_each_end_is_told_why() {
    #[track_caller]
    fn check(client: &Home, server: &Home, want_client: &HandshakeError, want_server: &HandshakeError) {
        let mut meeting = meet(client, server);
        assert_eq!(meeting.client_error.as_ref(), Some(want_client));
        assert_eq!(meeting.server_error.as_ref(), Some(want_server));
        assert_eq!(meeting.heard(), (false, false));
    }
    use HandshakeError::{Refused, Stranger};
    let [one, other, third] = secrets();
    let (client, server) = (Home::new(&[&one]), Home::new(&[&other]));
    let unknown_server = Stranger(Some(other.public().server.fingerprint()));
    let unknown_client = Stranger(Some(one.public().fingerprint()));
    check(&client, &server, &unknown_server, &Refused);
    // A server that the client knows lets in others, not this one.
    client.write("known_servers", &format!("{HOST}:{PORT} {}\n", other.public()));
    server.write("authorized_keys", &format!("{}\n", third.public()));
    check(&client, &server, &Refused, &unknown_client);
    // A client that the server knows knows that server at another port.
    client.write("known_servers", &format!("{HOST}:1 {}\nelse:{PORT} {}\n", other.public(), other.public()));
    server.write("authorized_keys", &format!("{}\n", one.public()));
    check(&client, &server, &unknown_server, &Refused);
}

/// How two ends of one user meet that differ from ours in one thing.
fn odd(change: impl FnOnce(&mut ClientConfig, &mut ServerConfig, &Secret)) -> (Home, Meeting) {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    let mut client = (*home.client().client_config(HOST, PORT)).clone();
    let mut server = (*home.server().server_config()).clone();
    change(&mut client, &mut server, &secret);
    (home, Meeting::new(client.into(), server.into()).run(|_, _, _| ()))
}

#[test]
fn a_key_of_the_wrong_role_is_a_strangers() {
    let (_, meeting) = odd(|client, _, secret| {
        let key = certified(secret, Role::Server);
        client.client_auth_cert_resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(key));
    });
    assert!(matches!(meeting.server_error, Some(HandshakeError::Stranger(Some(_)))), "{:?}", meeting.server_error);
    assert_eq!(meeting.client_error, Some(HandshakeError::Refused));
    let (_, meeting) = odd(|_, server, secret| {
        let key = certified(secret, Role::Client);
        server.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(key));
    });
    assert!(matches!(meeting.client_error, Some(HandshakeError::Stranger(Some(_)))), "{:?}", meeting.client_error);
    assert_eq!(meeting.server_error, Some(HandshakeError::Refused));
}

#[test]
fn who_shows_a_key_without_having_it_is_found_out() {
    // The public key of the one, signed for by the other.
    let stolen = |of: &Secret, role| {
        let [thief] = secrets();
        let (shown, signs) = (certified(of, role), certified(&thief, role));
        Arc::new(CertifiedKey::new(shown.cert.clone(), Arc::clone(&signs.key)))
    };
    let (_, mut meeting) = odd(|client, _, secret| {
        let key = stolen(secret, Role::Client);
        client.client_auth_cert_resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(key));
    });
    assert!(matches!(meeting.server_error, Some(HandshakeError::Unproven)), "{:?}", meeting.server_error);
    assert_eq!(meeting.heard(), (false, false));
    let (_, mut meeting) = odd(|_, server, secret| {
        let key = stolen(secret, Role::Server);
        server.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(key));
    });
    assert!(matches!(meeting.client_error, Some(HandshakeError::Unproven)), "{:?}", meeting.client_error);
    assert_eq!(meeting.heard(), (false, false));
}

/// A client that shows no key.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn only_raw_public_keys(&self) -> bool {
        true
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn another_protocol_or_none_is_not_ours() {
    #[track_caller]
    fn check(
        change: fn(&mut ClientConfig, &mut ServerConfig, &Secret),
        want_client: Option<HandshakeError>,
        want_server: Option<HandshakeError>,
    ) {
        let (home, mut meeting) = odd(change);
        assert_eq!((&meeting.client_error, &meeting.server_error), (&want_client, &want_server));
        assert_eq!(meeting.heard().1, want_server.is_none());
        // TLS itself lets through who names no protocol; we do not.
        assert_eq!(home.client().confirm(&meeting.client), Err(HandshakeError::Version));
        let grant = home.server().grant(&meeting.server, "::1".parse().unwrap());
        assert_eq!(grant, Err(Denied { key: None, text: HandshakeError::Version.to_string() }));
    }
    use HandshakeError::Version;
    check(|client, _, _| client.alpn_protocols = vec![b"pdcp/2".to_vec()], Some(Version), Some(Version));
    check(|client, _, _| client.alpn_protocols.clear(), None, None);
    check(|_, server, _| server.alpn_protocols.clear(), None, None);
}

#[test]
fn who_shows_no_key_is_a_stranger() {
    let (_, mut meeting) = odd(|client, _, _| client.client_auth_cert_resolver = Arc::new(Nobody));
    assert_eq!(meeting.server_error, Some(HandshakeError::Stranger(None)));
    assert_eq!(meeting.client_error, Some(HandshakeError::Refused));
    assert_eq!(meeting.heard(), (false, false));
}

#[test]
fn an_older_tls_is_refused() {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    let offers_only_tls12 = |way, before, bytes: &mut Vec<u8>| {
        if way == Way::ToServer && before == 0 {
            let offer = [0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04]; // supported_versions: TLS 1.3 alone
            let at = bytes.windows(offer.len()).position(|window| window == offer).unwrap();
            bytes[at + offer.len() - 1] = 0x03;
        }
    };
    let (client, server) = (home.client().client_config(HOST, PORT), home.server().server_config());
    let mut meeting = Meeting::new(client, server).run(offers_only_tls12);
    assert_eq!(meeting.server_error, Some(HandshakeError::Version));
    assert_eq!(meeting.client_error, Some(HandshakeError::Version));
    assert_eq!(meeting.heard(), (false, false));
}

#[test]
fn who_does_not_speak_tls_is_found_out() {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"pdcp\0\0\0\x01", b"SSH-2.0-OpenSSH\r\n", &[0; 64], &[0xff; 64]] {
        let (client, server) = (home.client().client_config(HOST, PORT), home.server().server_config());
        let Meeting { mut client, mut server, mut client_error, mut server_error, .. } = Meeting::new(client, server);
        hear(&mut server, bytes, &mut server_error);
        hear(&mut client, bytes, &mut client_error);
        assert_eq!(
            (client_error, server_error),
            (Some(HandshakeError::NotTls), Some(HandshakeError::NotTls)),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_refused_user_is_told_the_likely_cause_and_what_to_do() {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    home.write("known_servers", &format!("other:9000 {}\n", secret.public()));
    let client = home.client();
    let changed = client.explain(&HandshakeError::Stranger(None), "other", 9000, b"other:9000").to_string();
    assert!(changed.contains("known_servers has for it") && changed.contains("in between"), "{changed}");
    let check = |error: &HandshakeError, kind: Kind, told: &[&str]| {
        let failure = client.explain(error, "host", 9000, b"host:9000");
        assert_eq!(failure.kind, kind);
        for words in told.iter().chain(&["host:9000: "]) {
            assert!(failure.to_string().contains(words), "{failure}");
        }
    };
    let path = home.path("key");
    let path = path.to_str().unwrap();
    let sudo = "sudo pdcp --serve";
    let listed = "'host:9000 PUBLIC-KEY'";
    check(&HandshakeError::Stranger(None), Kind::Refused, &[sudo, path, listed, "known_servers"]);
    let own = secret.public().fingerprint().to_string();
    check(&HandshakeError::Refused, Kind::Refused, &[&own, path, "authorized_keys"]);
    check(&HandshakeError::Version, Kind::Protocol, &["another version"]);
    check(&HandshakeError::NotTls, Kind::Protocol, &["does not speak TLS"]);
    check(&HandshakeError::Broken("why".into()), Kind::ConnectionLost, &["why"]);
}

/// What TLS 1.3 leaves unprotected of the heads of records, and what nothing depends on: the lower half of the version, and
/// the type of a sealed record, whose true one is inside.
fn meaningless(mut stream: &[u8]) -> Vec<usize> {
    const SEALED: u8 = 0x17;
    let whole = stream.len();
    let mut positions = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = stream {
        let start = whole - stream.len();
        positions.push(start + 2);
        positions.extend((*kind == SEALED).then_some(start));
        stream = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    positions
}

/// What becomes of one byte.
#[derive(Clone, Copy)]
enum Harm {
    Flip,
    /// Neither it nor any behind it arrives.
    Cut,
}

/// Runs a handshake for each byte that goes `way`, and finds after which `harm` the two ends still talk; and the bytes of
/// one without.
fn survivors(way: Way, harm: Harm) -> (Vec<usize>, Vec<u8>) {
    let [secret] = secrets();
    let home = Home::new(&[&secret]);
    let (client, server) = (home.client().client_config(HOST, PORT), home.server().server_config());
    let meeting = || Meeting::new(Arc::clone(&client), Arc::clone(&server));
    let mut untouched = meeting().run(|_, _, _| ());
    assert_eq!(untouched.heard(), (true, true));
    let stream = untouched.bytes(way).to_vec();
    let survives = |position: &usize| {
        let tamper = |its_way, before, bytes: &mut Vec<u8>| match (harm, position.checked_sub(before)) {
            _ if its_way != way => {}
            (Harm::Flip, at) => {
                if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 1 << (position % 8);
                }
            }
            (Harm::Cut, at) => bytes.truncate(at.unwrap_or(0)),
        };
        meeting().run(tamper).heard() == (true, true)
    };
    ((0..stream.len()).filter(survives).collect(), stream)
}

#[track_caller]
fn check_flips(way: Way) {
    let (survived, stream) = survivors(way, Harm::Flip);
    let meaningless = meaningless(&stream);
    let meant: Vec<_> = survived.iter().filter(|position| !meaningless.contains(position)).collect();
    assert!(meant.is_empty(), "of {} bytes {way:?} these may be changed: {meant:?}", stream.len());
}

#[test]
fn no_byte_to_the_server_can_be_changed() {
    check_flips(Way::ToServer);
}

#[test]
fn no_byte_to_the_client_can_be_changed() {
    check_flips(Way::ToClient);
}

#[test]
fn a_handshake_that_is_cut_anywhere_never_completes() {
    for way in [Way::ToServer, Way::ToClient] {
        let (survived, _) = survivors(way, Harm::Cut);
        assert!(survived.is_empty(), "{way:?}: {survived:?}");
    }
}
