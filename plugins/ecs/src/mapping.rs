//! The mapping. **This is the file to edit**: each row is a fact about one field of Teleport's
//! events.
//!
//! Rows run from top to bottom, but only those whose field is in the event. A path that begins with
//! a dot is inside `teleport.audit`, which at first contains the whole event; other paths are those
//! of the document. Fields without a row stay under `teleport.audit`.
//!
//! Rule ids (`G027`) are those of the mapping's specification, and of the error messages. The
//! README explains the rows that a later version of Elastic's integration changed (`V`) and the odd
//! ones (`Q`).

use crate::row::Op::*;
use crate::row::Test::*;
use crate::row::{Row, row};

/// Fields of the envelope, before anything else.
pub const INTAKE: &[Row] = &[
    row("E05", Timestamp, ".time", "@timestamp").only(Has(".time")),
    row("E06", Delete, ".time", ""),
    row("E07", Move, ".event", "event.action"),
    row("E08", Move, ".code", "event.code"),
    row("E09", Move, ".uid", "event.id"),
    row("E10", Move, ".ei", "event.sequence"),
];

/// Fields with one meaning each, grouped by topic.
pub const GROUPS: &[Row] = &[
    // Session, actor, impersonation V5: labels first, so that a later failure cannot leave them
    // behind.
    row("V5", TryMove, ".kubernetes_labels", ".kubernetes.labels").later(),
    row("V5", TryMove, ".kube_labels", ".kubernetes.labels").later(),
    row("V5", TryMove, ".server_labels", ".server.labels").later(),
    row("G001", Move, ".sid", ".session.id"),
    row("G002", Move, ".with_mfa", ".mfa_device.uuid"),
    row(
        "G003",
        Move,
        ".private_key_policy",
        ".session.private_key_policy",
    ),
    row("G004", Delete, ".user.user", ""),
    row("G005", TryMove, ".user", "user.name"),
    row("G006", Move, ".login", "process.user.name"),
    row("G007", Move, ".impersonator", ".user.impersonator"),
    row("G008", Move, ".aws_role_arn", ".user.aws_role_arn"),
    row("G009", Move, ".access_requests", ".user.access_requests"),
    row("G010", Move, ".azure_identity", ".user.azure_identity"),
    row(
        "G011",
        Move,
        ".gcp_service_account",
        ".user.gcp_service_account",
    ),
    row("G012", Move, ".trusted_device", ".user.trusted_device"),
    row(
        "G013",
        Move,
        ".required_private_key_policy",
        ".user.required_private_key_policy",
    ),
    row("G014", Set("unspecified"), "", ".user.kind").only(Number(".user_kind", 0)),
    row("G015", Set("human"), "", ".user.kind").only(Number(".user_kind", 1)),
    row("G016", Set("bot"), "", ".user.kind").only(Number(".user_kind", 2)),
    row("G017", Delete, ".user_kind", "").only(Has(".user.kind")),
    // Where it ran (node) and peer addresses
    row("G018", Move, ".namespace", "group.name"),
    row("G019", Move, ".server_id", "host.id"),
    row("G020", Move, ".server_hostname", "host.hostname"),
    row("G021", Address, ".server_addr", "server"),
    row("G022", Delete, ".server_addr", "").quirk("Q9"),
    row("G023", Move, ".server_labels", ".server.labels"),
    row("G024", Move, ".forwarded_by", ".server.forwarded_by"),
    row("G025", Move, ".server_sub_kind", ".server.sub_kind"),
    row("G026", Move, ".server_version", ".server.version"),
    // V4: a plain `addr` stands aside while the dotted ones are read.
    row("V4", TryMove, ".addr", ".addr aside")
        .only(IsText(".addr"))
        .later(),
    row("G027", Undot, ".addr.local", ".addr.local"),
    row("G028", Address, ".addr.local", "destination").only(Has("server.address")),
    row("G029", Address, ".addr.local", "server").only(No("server.address")),
    row("G030", Delete, ".addr.local", "").quirk("Q9"),
    row("G031", Undot, ".addr.remote", ".addr.remote"),
    row("G032", Address, ".addr.remote", "client"),
    row("G033", Delete, ".addr.remote", "").quirk("Q9"),
    row("V4", Delete, ".addr", "").only(Empty(".addr")).later(),
    row("V4", TryMove, ".addr aside", ".addr").later(),
    row("G034", Move, ".proto", "network.protocol"),
    row("G035", Move, ".user_agent", "user_agent"),
    // Reads the field that G035 has moved.
    row("G036", UserAgent, ".user_agent", "user_agent"),
    // Kubernetes and pod
    row("G037", Set("kubernetes"), "", "orchestrator.type").only(Has(".kubernetes_cluster")),
    row(
        "G038",
        Move,
        ".kubernetes_cluster",
        "orchestrator.cluster.name",
    ),
    row("G039", Move, ".kubernetes_users", ".kubernetes.users"),
    row("G040", Move, ".kubernetes_groups", ".kubernetes.groups"),
    row("G041", Move, ".kubernetes_labels", ".kubernetes.labels"),
    row(
        "G042",
        Move,
        ".kubernetes_pod_name",
        "orchestrator.resource.name",
    ),
    row(
        "G043",
        Move,
        ".kubernetes_pod_namespace",
        "orchestrator.namespace",
    ),
    row(
        "G044",
        Move,
        ".kubernetes_container_name",
        ".kubernetes.pod.container_name",
    ),
    row(
        "G045",
        Move,
        ".kubernetes_container_image",
        ".kubernetes.pod.container_image",
    ),
    row(
        "G046",
        Move,
        ".kubernetes_node_name",
        ".kubernetes.pod.node_name",
    ),
    // SAML service provider, Okta, access lists, locks
    row(
        "G047",
        Move,
        ".service_provider_entity_id",
        ".saml_idp_service_provider.entity_id",
    ),
    row(
        "G048",
        Move,
        ".service_provider_shortcut",
        ".saml_idp_service_provider.shortcut",
    ),
    row(
        "G049",
        Move,
        ".attribute_mapping",
        ".saml_idp_service_provider.attribute_mapping",
    ),
    row("G050", Move, ".session_id", ".session.id").only(ActionStarts("saml.")),
    row("G051", Move, ".added", ".okta.resources.added"),
    row("G052", Move, ".updated", ".okta.resources.updated"),
    row("G053", Move, ".deleted", ".okta.resources.deleted"),
    row("G054", Move, ".source", ".okta.assignment.source"),
    row(
        "G055",
        Move,
        ".starting_status",
        ".okta.assignment.starting_status",
    ),
    row(
        "G056",
        Move,
        ".ending_status",
        ".okta.assignment.ending_status",
    ),
    row("G057", Move, ".access_list_name", ".access_list.name"),
    row("G058", Move, ".members", ".access_list.members"),
    row("G059", Move, ".review_id", ".access_list.review_id"),
    row(
        "G060",
        Move,
        ".review_frequency_changed",
        ".access_list.review_frequency_changed",
    ),
    row(
        "G061",
        Move,
        ".review_day_of_month_changed",
        ".access_list.review_day_of_month_changed",
    ),
    row(
        "G062",
        Move,
        ".removed_members",
        ".access_list.removed_members",
    ),
    row("G063", Move, ".target", ".lock.target").only(ActionStarts("lock.")),
    // Terminal size, recording, start/stop times
    row("G064", Move, ".size", ".session.terminal_size"),
    row("G065", Size, ".session.terminal_size", "process.tty"),
    row("G066", Move, ".initial_command", "process.command_line"),
    row(
        "G067",
        Move,
        ".session_recording",
        ".session.session_recording",
    ),
    row(
        "G068",
        Move,
        ".enhanced_recording",
        ".session.enhanced_recording",
    ),
    row("G069", Move, ".interactive", ".session.interactive"),
    row("G070", Move, ".participants", ".session.participants"),
    row("G071", Time, ".session_start", "event.start").only(Has(".session_start")),
    row("G072", Delete, ".session_start", "").only(Has("event.start")),
    row("G073", Time, ".session_stop", "event.end").only(Has(".session_stop")),
    row("G074", Delete, ".session_stop", "").only(Has("event.end")),
    // Desktop sharing, file transfer requests
    row("G075", Move, ".length", "client.bytes").only(Action("desktop.clipboard.send")),
    row("G076", Move, ".length", "server.bytes"),
    row("G077", Move, ".directory_name", "file.directory"),
    row("G078", Move, ".directory_id", ".desktop.directory_id"),
    row("G079", Move, ".file_path", "file.path"),
    row("G080", Move, ".ms", ".desktop.delay_ms"),
    row("G081", Move, ".offset", ".desktop.offset"),
    row("G082", Move, ".requestID", ".file_transfer_request.id"),
    row(
        "G083",
        Move,
        ".approvers",
        ".file_transfer_request.approvers",
    ),
    row(
        "G084",
        Move,
        ".requester",
        ".file_transfer_request.requester",
    ),
    row("G085", Move, ".location", "file.path"),
    row(
        "G086",
        Move,
        ".download",
        ".file_transfer_request.is_download",
    ),
    row("G087", Move, ".filename", "file.name"),
    // Process (enhanced recording), outcome, network
    row("G088", Move, ".pid", "process.pid"),
    row("G089", Move, ".cgroup_id", "process.cgroup.id"),
    row("G090", Move, ".program", "process.name"),
    row("G091", Add("success"), "", "event.outcome").only(Is(".success", "true")),
    row("G092", Delete, ".success", "").only(Is(".success", "true")),
    row("G093", Add("failure"), "", "event.outcome").only(Is(".success", "false")),
    row("G094", Delete, ".success", "").only(Is(".success", "false")),
    row("G095", Move, ".message", "message"),
    row("G096", Move, ".ppid", "process.parent.pid"),
    row("G097", Move, ".path", "process.executable").only(ActionStarts("session.")),
    row("G098", Move, ".argv", "process.args"),
    row("G099", Move, ".return_code", "process.exit_code"),
    row("G100", Move, ".flags", "process.flags"),
    row("G101", Move, ".src_addr", "source.address"),
    row("G102", Move, ".dst_addr", "destination.address"),
    row("G103", Int, ".dst_port", ".dst_port"),
    row("G104", Move, ".dst_port", "destination.port"),
    // Q2: meant for `session.network`, but applies to every `version`.
    row("G105", Move, ".version", ".network.tcp_version").quirk("Q2"),
    row("G105", Move, ".version", ".network.tcp_version")
        .only(Action("session.network"))
        .corrected("Q2"),
    row("G105", Move, ".version", ".sec_report.version")
        .only(Action("secreports.report.run"))
        .corrected("Q2"),
    row("G106", Set("ipv4"), "", "network.type").only(Number(".network.tcp_version", 4)),
    row("G107", Set("ipv6"), "", "network.type").only(Number(".network.tcp_version", 6)),
    row("G108", Delete, ".network.tcp_version", "").only(Number(".network.tcp_version", 4)),
    row("G108", Delete, ".network.tcp_version", "").only(Number(".network.tcp_version", 6)),
    row("G109", Str, ".network.tcp_version", ".network.tcp_version"),
    row("G110", Move, ".network.tcp_version", "network.type"),
    row("G111", Set("connect"), "", ".network.operation").only(Number(".operation", 0)),
    row("G112", Set("send"), "", ".network.operation").only(Number(".operation", 1)),
    row("G113", Delete, ".operation", ""),
    // Q1: meant for `session.network`, but the `action` of every event is taken for it, so an SFTP
    // OPEN (1) reads as denied.
    row("G114", Set("observed"), "", ".network.action")
        .only(Number(".action", 0))
        .quirk("Q1"),
    row("G114", Set("observed"), "", ".network.action")
        .only(Number(".action", 0))
        .only(Action("session.network"))
        .corrected("Q1"),
    row("G115", Set("denied"), "", ".network.action")
        .only(Number(".action", 1))
        .quirk("Q1"),
    row("G115", Set("denied"), "", ".network.action")
        .only(Number(".action", 1))
        .only(Action("session.network"))
        .corrected("Q1"),
    row("G116", Delete, ".action", "")
        .only(Has(".network.action"))
        .quirk("Q1"),
    row("G116", Delete, ".action", "")
        .only(Has(".network.action"))
        .only(Action("session.network"))
        .corrected("Q1"),
    row("G117", Move, ".tx", "source.bytes"),
    row("G118", Move, ".rx", "destination.bytes"),
    // Resource, login, MFA
    row("G119", Move, ".expires", ".resource.expires"),
    row("G120", Move, ".updated_by", ".resource.updated_by"),
    row("G121", TryMove, ".resource.updated_by", "user.name"),
    row("G122", Move, ".ttl", ".resource.ttl"),
    row("G123", Move, ".method", ".login.method").only(Action("user.login")),
    row("G124", Move, ".attributes", ".login.identity_attributes").only(Action("user.login")),
    row(
        "G125",
        Move,
        ".mfa_device.mfa_device_name",
        ".mfa_device.name",
    ),
    row(
        "G126",
        Move,
        ".mfa_device.mfa_device_type",
        ".mfa_device.type",
    ),
    row(
        "G127",
        Move,
        ".mfa_device.mfa_device_uuid",
        ".mfa_device.uuid",
    ),
    // Login rules, challenges, access requests
    row("G128", Move, ".applied_login_rules", ".login.applied_rules"),
    row("G129", Move, ".challenge_scope", ".login.challenge_scope"),
    row(
        "G130",
        Move,
        ".challenge_allow_reuse",
        ".login.challenge_allow_reuse",
    ),
    row("G131", Move, ".connector", ".user.connector"),
    // Q4: the roles of every event are taken for those of an access request.
    row("G132", Move, ".roles", ".access_request.roles").quirk("Q4"),
    row("G132", Move, ".roles", ".access_request.roles")
        .only(ActionStarts("access_request."))
        .corrected("Q4"),
    row(
        "G132",
        Move,
        ".roles",
        ".access_list.membership_requirements_changed.roles",
    )
    .only(Action("access_list.review"))
    .corrected("Q4"),
    row("G132", Move, ".roles", ".database.roles")
        .only(ActionStarts("db.session."))
        .corrected("Q4"),
    row("G132", Move, ".roles", ".user.roles")
        .only(ActionStarts("user."))
        .corrected("Q4"),
    row("G133", Move, ".id", ".access_request.id"),
    row("G134", Move, ".state", ".access_request.state"),
    row("G135", Move, ".delegator", ".access_request.delegator"),
    row("G136", Move, ".annotations", ".access_request.annotations"),
    row("G137", Move, ".reviewer", ".access_request.reviewer"),
    row(
        "G138",
        Move,
        ".proposed_state",
        ".access_request.proposed_state",
    ),
    row(
        "G139",
        Move,
        ".resource_ids",
        ".access_request.resource_ids",
    ),
    row(
        "G140",
        Move,
        ".max_duration",
        ".access_request.max_duration",
    ),
    row(
        "G141",
        Move,
        ".promoted_access_list_name",
        ".access_request.promoted_access_list_name",
    ),
    row(
        "G142",
        Move,
        ".assume_start_time",
        ".access_request.assume_start_time",
    ),
    // Exec / SCP / SFTP
    row("G143", Move, ".command", "process.command_line"),
    row("G144", TryInt, ".exitCode", ".exitCode"),
    row("G145", Move, ".exitCode", "process.exit_code"),
    row("G146", Move, ".exitError", "process.io.text"),
    row("G147", Move, ".path", "file.path").only(Action("scp")),
    row("G148", Move, ".action", ".scp.action").only(Action("scp")),
    row(
        "G149",
        Move,
        ".working_directory",
        "process.working_directory",
    ),
    row("G150", Move, ".path", "file.path").only(Action("sftp")),
    row("G151", Move, ".target_path", ".sftp.target_path"),
    row("G152", Move, ".attributes", ".sftp.attributes").only(Action("sftp")),
    row("G153", LabelList(SFTP), ".action", ".sftp.action").only(Action("sftp")),
    // Disconnect reason, Kubernetes API request
    row("G154", Move, ".reason", "event.reason"),
    row("G155", Move, ".request_path", "url.path"),
    row("G156", Move, ".verb", "http.request.method"),
    row(
        "G157",
        Move,
        ".resource_api_group",
        "orchestrator.api_version",
    ),
    row(
        "G158",
        Move,
        ".resource_namespace",
        "orchestrator.namespace",
    ),
    row("G159", Move, ".resource_kind", "orchestrator.resource.type"),
    row("G160", Move, ".resource_name", "orchestrator.resource.name"),
    row("G161", Move, ".response_code", "http.response.status_code"),
    // Applications and AWS
    row("G162", Move, ".app_uri", ".app.uri"),
    row("G163", Move, ".app_public_addr", ".app.public_address"),
    row("G164", TryMove, ".public_addr", ".app.public_address"),
    row("G165", Move, ".app_labels", ".app.labels"),
    row("G166", Move, ".app_name", ".app.name"),
    row("G167", Move, ".session_chunk_id", ".app.session.chunk_id"),
    row("G168", Set("aws"), "", "cloud.provider")
        .only(Has(".aws_region"))
        .first(),
    row("G168", Set("aws"), "", "cloud.provider")
        .only(Has(".aws_region"))
        .only(No("cloud.provider"))
        .later(),
    row("G169", Move, ".aws_region", "cloud.region").first(),
    row("G169", Claim, ".aws_region", "cloud.region").later(),
    row("G170", Move, ".aws_service", "cloud.service.name").first(),
    row("G170", Claim, ".aws_service", "cloud.service.name").later(),
    row("G171", Move, ".aws_host", "cloud.instance.id").first(),
    row("G171", Claim, ".aws_host", "cloud.instance.id").later(),
    row("G172", Move, ".aws_assumed_role", ".app.aws.assumed_role"),
    // Database: common
    row("G173", Move, ".db_service", "service.name"),
    row("G174", Move, ".db_protocol", ".database.protocol"),
    row("G175", Move, ".uri", ".db_uri").only(ActionStarts("db.")),
    row("G176", Move, ".db_uri", ".database.uri"),
    row("G177", HostPort, ".database.uri", "url")
        .only(Has(".database.uri"))
        .only(No("url")),
    row("G178", Move, ".database.uri", "url.original")
        .only(Has(".database.uri"))
        .only(Has("url")),
    row("G179", Uri, ".database.uri", "url").only(No("url")),
    row("G180", Delete, ".database.uri", ""),
    row("G181", Move, ".db_name", ".database.name"),
    row("G182", Move, ".db_user", ".database.user"),
    row("G183", Move, ".db_labels", ".database.labels"),
    row("G184", Set("aws"), "", "cloud.provider").only(Has(".db_aws_region")),
    row("G185", Move, ".db_aws_region", "cloud.region").first(),
    row("G185", Claim, ".db_aws_region", "cloud.region").later(),
    // Q14: Teleport does not send `redshift_cluster_id`.
    row("G186", Set("aws"), "", "cloud.provider")
        .only(Has(".redshift_cluster_id"))
        .quirk("Q14")
        .first(),
    row("G186", Set("aws"), "", "cloud.provider")
        .only(Has(".redshift_cluster_id"))
        .only(No("cloud.provider"))
        .quirk("Q14")
        .later(),
    row("G186", Set("aws"), "", "cloud.provider")
        .only(Has(".db_aws_redshift_cluster_id"))
        .only(No("cloud.provider"))
        .corrected("Q14"),
    row(
        "G187",
        Move,
        ".db_aws_redshift_cluster_id",
        ".database.aws.redshift_cluster_id",
    ),
    row("G188", Set("gcp"), "", "cloud.provider")
        .only(Has(".db_gcp_project_id"))
        .first(),
    row("G188", Set("gcp"), "", "cloud.provider")
        .only(Has(".db_gcp_project_id"))
        .only(No("cloud.provider"))
        .later(),
    row("G189", Move, ".db_gcp_project_id", "cloud.project.id"),
    row("G190", Move, ".db_gcp_instance_id", "cloud.instance.id").first(),
    row("G190", Claim, ".db_gcp_instance_id", "cloud.instance.id").later(),
    // Database: user, query, PostgreSQL
    row("G191", Move, ".db_roles", ".database.roles"),
    row("G192", Move, ".db_type", "service.type"),
    row("G193", Move, ".db_origin", ".database.origin"),
    row("G194", Move, ".db_query", ".database.query"),
    row(
        "G195",
        Move,
        ".db_query_parameters",
        ".database.query_parameters",
    ),
    row(
        "G196",
        Move,
        ".permission_summary",
        ".database.permission_summary",
    ),
    row(
        "G197",
        Move,
        ".affected_object_counts",
        ".database.affected_object_counts",
    ),
    row("G198", Move, ".username", ".database.user_change.username"),
    row("G199", Move, ".delete", ".database.user_change.is_deleted"),
    row(
        "G200",
        Move,
        ".statement_name",
        ".database.postgres.statement_name",
    ),
    // Q3: Elastic's integration has another row for the query of an audit query, after this one has
    // moved it.
    row("G201", Move, ".query", ".audit_query.query")
        .only(Action("secreports.audit.query.run"))
        .corrected("Q3"),
    row("G201", Move, ".query", ".database.query"),
    row(
        "G202",
        Move,
        ".portal_name",
        ".database.postgres.portal_name",
    ),
    row("G203", Move, ".parameters", ".database.query_parameters"),
    row(
        "G204",
        Move,
        ".function_oid",
        ".database.postgres.function_oid",
    ),
    row(
        "G205",
        Move,
        ".function_args",
        ".database.postgres.function_args",
    ),
    // Windows desktop, MFA device (flat)
    row(
        "G206",
        Move,
        ".windows_desktop_service",
        ".desktop.windows_desktop_service",
    ),
    row("G207", Address, ".desktop_addr", "server"),
    row("G208", Delete, ".desktop_addr", "").quirk("Q9"),
    row("G209", Move, ".windows_domain", "server.user.domain"),
    row("G210", Move, ".windows_user", "server.user.name"),
    row("G211", Move, ".desktop_labels", ".desktop.labels"),
    row("G212", Move, ".desktop_name", ".desktop.name"),
    row(
        "G213",
        Move,
        ".allow_user_creation",
        ".desktop.allow_user_creation",
    ),
    row("G214", Move, ".mfa_device_uuid", ".mfa_device.uuid"),
    row("G215", Move, ".mfa_device_name", ".mfa_device.name"),
    row("G216", Move, ".mfa_device_type", ".mfa_device.type"),
    row("G217", Move, ".recorded", ".desktop.is_recorded"),
    // Certificates, bot/instance join
    row("G218", Move, ".cert_type", ".certificate.type"),
    row("G219", Move, ".identity", ".certificate.identity"),
    row("G220", Move, ".bot_name", ".join.bot_name"),
    row("G221", Move, ".method", ".join.method").only(ActionEnds(".join")),
    row("G222", Move, ".token_name", ".join.token_name"),
    row("G223", Move, ".attributes", ".join.attributes").only(ActionEnds(".join")),
    row("G224", Move, ".user_name", ".join.user_name"),
    row("G225", Move, ".host_id", "host.id"),
    row("G226", Move, ".node_name", "host.name"),
    row("G227", Move, ".role", ".join.role"),
    row("G228", Move, ".token_expires", ".join.token_expires"),
    // Unknown events, trusted devices
    row("G229", Move, ".metadata", ".unknown.metadata"),
    row("G230", Move, ".unknown_event", ".unknown.event_type"),
    row("G231", Move, ".unknown_code", ".unknown.code"),
    row("G232", Json, ".data", ".unknown.data"),
    row("G233", Delete, ".data", ""),
    row("G234", Move, ".device_id", ".device.device_id"),
    row("G235", Set("UNSPECIFIED"), "", ".device.os_type").only(Number(".device.os_type", 0)),
    row("G236", Set("LINUX"), "", ".device.os_type").only(Number(".device.os_type", 1)),
    row("G237", Set("MACOS"), "", ".device.os_type").only(Number(".device.os_type", 2)),
    row("G238", Set("WINDOWS"), "", ".device.os_type").only(Number(".device.os_type", 3)),
    row("G239", Delete, ".os_type", "").only(Has(".device.os_type")),
    // Q5: the rows above read a number at a path to which it has not been moved yet; only a nested
    // `device` has it there.
    row("G240", Label(OS), ".os_type", ".device.os_type").corrected("Q5"),
    row("G240", Str, ".os_type", ".os_type"),
    row("G241", Move, ".os_type", ".device.os_type").only(No(".device.os_type")),
    row("G242", Move, ".asset_tag", ".device.asset_tag"),
    row("G243", Move, ".credential_id", ".device.credential_id"),
    row("G244", Move, ".device_origin", ".device.origin"),
    row(
        "G245",
        Move,
        ".web_authentication",
        ".device.web_authentication",
    ),
    row("G246", Move, ".web_session_id", ".device.web_session_id"),
    // Session upload URL, certificate identity
    row("G247", Uri, ".url", "url").only(No("url")),
    row("G248", Move, ".url", "url.original"),
    row(
        "G249",
        Move,
        ".certificate.identity.mfa_device_uuid",
        ".mfa_device.uuid",
    ),
    row(
        "G250",
        TryMove,
        ".certificate.identity.client_ip",
        "client.ip",
    ),
    // Resource search, MySQL, SQL Server
    row(
        "G251",
        Move,
        ".search_as_roles",
        ".access_request.resource_search.search_as_roles",
    ),
    row(
        "G252",
        Move,
        ".resource_type",
        ".access_request.resource_search.resource_type",
    ),
    row(
        "G253",
        Move,
        ".labels",
        ".access_request.resource_search.labels",
    ),
    row(
        "G254",
        Move,
        ".predicate_expression",
        ".access_request.resource_search.predicate_expression",
    ),
    row(
        "G255",
        Move,
        ".search_keywords",
        ".access_request.resource_search.search_keywords",
    ),
    row(
        "G256",
        Move,
        ".statement_id",
        ".database.mysql.statement_id",
    ),
    row("G257", Move, ".schema_name", ".database.mysql.schema_name"),
    row("G258", Move, ".process_id", ".database.mysql.process_id"),
    row("G259", Move, ".subcommand", ".database.mysql.subcommand"),
    row(
        "G260",
        Move,
        ".parameter_id",
        ".database.mysql.parameter_id",
    ),
    row("G261", Move, ".data_size", ".database.mysql.data_size"),
    row("G262", Move, ".rows_count", ".database.mysql.rows_count"),
    row("G263", Move, ".proc_name", ".database.proc_name"),
    row("G264", Move, ".payload", ".database.payload"),
    // Elasticsearch / OpenSearch / DynamoDB
    row("G265", Move, ".headers", "http.request.headers"),
    row(
        "G266",
        Label(SEARCH),
        ".category",
        ".database.elasticsearch.category",
    )
    .only(ActionContains(".session.elasticsearch")),
    row("G267", Move, ".target", ".database.elasticsearch.target")
        .only(ActionContains(".session.elasticsearch")),
    row(
        "G268",
        Label(SEARCH),
        ".category",
        ".database.opensearch.category",
    )
    .only(ActionContains(".session.opensearch")),
    row("G269", Move, ".target", ".database.opensearch.target")
        .only(ActionContains(".session.opensearch")),
    row("G270", Move, ".target", ".database.dynamodb.target")
        .only(ActionContains(".session.dynamodb.")),
    // Upgrade window, SSM run
    row(
        "G271",
        Move,
        ".upgrade_window_start",
        ".upgradewindow.start",
    ),
    row("G272", Move, ".kube_labels", ".kubernetes.labels"),
    row("G273", Set("aws"), "", "cloud.provider")
        .only(Has(".command_id"))
        .first(),
    row("G273", Set("aws"), "", "cloud.provider")
        .only(Has(".command_id"))
        .only(No("cloud.provider"))
        .later(),
    row(
        "G274",
        Move,
        ".command_id",
        ".database.aws.ssm_run.command_id",
    ),
    row("G275", Move, ".instance_id", "cloud.instance.id").first(),
    row("G275", Claim, ".instance_id", "cloud.instance.id").later(),
    row("G276", Move, ".exit_code", "process.exit_code"),
    row("G277", Set("success"), "", "event.outcome").only(Says(".status", "Success")),
    row("G278", Set("failure"), "", "event.outcome").only(Says(".status", "Failure")),
    row("G279", Delete, ".status", ""),
    row("G280", Move, ".account_id", "cloud.account.id").first(),
    row("G280", Claim, ".account_id", "cloud.account.id").later(),
    row("G281", TryMove, ".region", "cloud.region").first(),
    row("G281", Claim, ".region", "cloud.region").later(),
    row("G282", Move, ".stdout", ".database.aws.ssm_run.stdout"),
    row("G283", Move, ".stderr", ".database.aws.ssm_run.stderr"),
    row(
        "G284",
        Move,
        ".invocation_url",
        ".database.aws.ssm_run.invocation_url",
    ),
    // Cassandra
    row("G285", Move, ".keyspace", ".database.cassandra.keyspace"),
    row("G286", Move, ".query_id", ".database.cassandra.query_id"),
    row(
        "G287",
        Move,
        ".consistency",
        ".database.cassandra.consistency",
    ),
    row(
        "G288",
        Move,
        ".batch_type",
        ".database.cassandra.batch_type",
    ),
    row("G289", Move, ".children", ".database.cassandra.children"),
    row(
        "G290",
        Move,
        ".event_types",
        ".database.cassandra.event_types",
    ),
    // Security reports, external audit storage
    row("G291", Move, ".name", ".audit_query.name").only(Action("secreports.audit.query.run")),
    row("G292", Move, ".days", ".audit_query.days").only(Action("secreports.audit.query.run")),
    row(
        "G293",
        Move,
        ".total_execution_time_in_millis",
        ".audit_query.total_execution_time_in_millis",
    )
    .only(Action("secreports.audit.query.run")),
    row(
        "G294",
        Move,
        ".data_scanned_in_bytes",
        ".audit_query.data_scanned_in_bytes",
    )
    .only(Action("secreports.audit.query.run")),
    row("G295", Move, ".name", ".sec_report.name").only(Action("secreports.report.run")),
    row(
        "G296",
        Move,
        ".total_execution_time_in_millis",
        ".sec_report.total_execution_time_in_millis",
    )
    .only(Action("secreports.report.run")),
    row(
        "G297",
        Move,
        ".total_data_scanned_in_bytes",
        ".sec_report.total_data_scanned_in_bytes",
    )
    .only(Action("secreports.report.run")),
    row(
        "G298",
        TryMove,
        ".data_scanned_in_bytes",
        ".sec_report.total_data_scanned_in_bytes",
    )
    .only(Action("secreports.report.run")),
    row("G299", Move, ".sec_report.audit_queries", ".audit_query")
        .only(Action("secreports.report.run")),
    row(
        "G300",
        Move,
        ".integration_name",
        ".external_audit_storage.integration_name",
    ),
    row(
        "G301",
        Move,
        ".session_recordings_uri",
        ".external_audit_storage.session_recordings_uri",
    ),
    row(
        "G302",
        Move,
        ".athena_workgroup",
        ".external_audit_storage.athena_workgroup",
    ),
    row(
        "G303",
        Move,
        ".glue_database",
        ".external_audit_storage.glue_database",
    ),
    row(
        "G304",
        Move,
        ".glue_table",
        ".external_audit_storage.glue_table",
    ),
    row(
        "G305",
        Move,
        ".audit_events_long_term_uri",
        ".external_audit_storage.audit_events_long_term_uri",
    ),
    row(
        "G306",
        Move,
        ".athena_results_uri",
        ".external_audit_storage.athena_results_uri",
    ),
    row(
        "G307",
        Move,
        ".policy_name",
        ".external_audit_storage.policy_name",
    ),
    // Okta sync, SPIFFE, access path, Spanner
    row("G308", Move, ".org_url", ".okta.org_url"),
    row("G309", Move, ".app_id", ".okta.app_id"),
    row("G310", Move, ".num_users_created", ".okta.users.created"),
    row("G311", Move, ".num_users_deleted", ".okta.users.deleted"),
    row("G312", Move, ".num_users_modified", ".okta.users.modified"),
    row("G313", Move, ".num_users_total", ".okta.users.total"),
    row("G314", Move, ".spiffe_id", ".svid.spiffe_id"),
    row("G315", Move, ".dns_sans", ".svid.dns_sans"),
    row("G316", Move, ".ip_sans", ".svid.ip_sans"),
    row("G317", Move, ".svid_type", ".svid.type"),
    row("G318", Move, ".serial_number", ".svid.serial_number"),
    row("G319", Move, ".hint", ".svid.hint"),
    row("G320", Move, ".change_id", ".access_path_change.id"),
    row(
        "G321",
        Move,
        ".affected_resource_name",
        ".access_path_change.resource.name",
    ),
    row(
        "G322",
        Move,
        ".affected_resource_source",
        ".access_path_change.resource.source",
    ),
    row(
        "G323",
        Move,
        ".procedure",
        ".database.spanner.rpc.procedure",
    ),
    row("G324", Move, ".args", ".database.spanner.rpc.args"),
];

/// Names with other meanings elsewhere, after all specific rows.
pub const LEFTOVERS: &[Row] = &[
    row("L01", Move, ".method", "http.request.method"),
    row("L02", TryMove, ".path", "url.path"),
    row("L03", TryMove, ".raw_query", "url.query"),
    row("L04", TryMove, ".cluster_name", "orchestrator.cluster.name"),
    row("L05", Delete, ".cluster_name", ""),
    row("L06", Move, ".name", "orchestrator.resource.name"),
    row("L07", Base64, ".body", ".body").only(Has(".body")),
    row("L08", Move, ".body", ".database.request_body"),
    row(
        "L09",
        Copy,
        ".database.request_body",
        "http.request.body.content",
    )
    .only(Has(".database.request_body"))
    .only(IsText(".database.request_body")),
    row(
        "L10",
        Json,
        ".database.request_body",
        ".database.request_body",
    )
    .only(Has(".database.request_body")),
    row("L11", Move, ".status_code", "http.response.status_code"),
    row("L12", AddText, ".error", "message").only(Has(".error")),
    row("L13", Delete, ".error", ""),
];

/// SFTP's operations. 0 INVALID and 1 OPEN never occur here, see Q1.
const SFTP: &[(i64, &str)] = &[
    (0, "INVALID"),
    (1, "OPEN"),
    (2, "CLOSE"),
    (3, "READ"),
    (4, "WRITE"),
    (5, "LSTAT"),
    (6, "FSTAT"),
    (7, "SETSTAT"),
    (8, "FSETSTAT"),
    (9, "OPENDIR"),
    (10, "READDIR"),
    (11, "REMOVE"),
    (12, "MKDIR"),
    (13, "RMDIR"),
    (14, "REALPATH"),
    (15, "STAT"),
    (16, "RENAME"),
    (17, "READLINK"),
    (18, "SYMLINK"),
    (19, "LINK"),
];

/// The actions of requests to Elasticsearch or OpenSearch.
const SEARCH: &[(i64, &str)] = &[(0, "GENERAL"), (1, "SECURITY"), (2, "SEARCH"), (3, "SQL")];

/// A trusted device's operating system.
const OS: &[(i64, &str)] = &[
    (0, "UNSPECIFIED"),
    (1, "LINUX"),
    (2, "MACOS"),
    (3, "WINDOWS"),
];
