// SPDX-License-Identifier: MPL-2.0
use streamkvqa_wall::brokers::metrics::Metrics;
use streamkvqa_wall::hub::*;

use super::servers::until;
use super::stand_in::{alert, answer, camera};

#[tokio::test]
async fn prometheus_reads_what_is_so_and_what_has_been() {
    let hub = Hub::new();
    let metrics = Metrics::start(&hub, &hub);
    // The counting is a task: what it has seen first tells that it listens.
    until("the count", || {
        hub.publish(Event::Answer(answer("probe", "x")));
        metrics.text().contains("answers_total{camera=\"probe\"").then_some(())
    })
    .await;
    hub.publish(Event::Camera(camera("yard", CameraState::Live, Vec::new())));
    hub.publish(Event::Camera(camera("hall", CameraState::Elsewhere, Vec::new())));
    hub.publish(Event::Answer(answer("yard", "a fox")));
    hub.publish(Event::Alert(alert("yard", AlertState::On)));
    hub.publish(Event::Broker(Broker {
        name: "webhook \"a\\b\"\nc".into(),
        kind: BrokerKind::Webhook,
        state: BrokerState::Failed,
        reason: None,
        next_try: None,
        waiting: 3,
    }));
    let text =
        until("the alert", || Some(metrics.text()).filter(|text| text.contains("alerts_total{")))
            .await;
    for line in [
        "streamkvqa_wall_cameras{state=\"live\"} 1",
        "streamkvqa_wall_cameras{state=\"elsewhere\"} 1",
        "streamkvqa_wall_cameras{state=\"waiting\"} 0",
        "streamkvqa_wall_camera_frames_total{camera=\"yard\"} 7.0",
        "streamkvqa_wall_camera_frames_dropped_total{camera=\"yard\"} 0.0",
        "streamkvqa_wall_camera_lag_seconds{camera=\"yard\"} 0.5",
        "streamkvqa_wall_camera_memory_bytes{camera=\"yard\"} 4096.0",
        "streamkvqa_wall_answers_total{camera=\"yard\",source=\"page\",result=\"ok\"} 1",
        "streamkvqa_wall_alerts_total{camera=\"yard\",state=\"on\"} 1",
        "streamkvqa_wall_first_token_seconds_bucket{le=\"0.1\",camera=\"yard\"} 0",
        "streamkvqa_wall_first_token_seconds_bucket{le=\"0.2\",camera=\"yard\"} 1",
        "streamkvqa_wall_broker_messages_waiting{broker=\"webhook \\\"a\\\\b\\\"\\nc\"} 3",
        "streamkvqa_wall_broker_connected{broker=\"webhook \\\"a\\\\b\\\"\\nc\"} 0",
    ] {
        assert!(text.lines().any(|there| there == line), "{line}\nis not in\n{text}");
    }
    assert!(!text.contains("camera=\"hall\""), "another wall's camera:\n{text}");
    assert!(text.ends_with("# EOF\n"));

    // A camera that is gone leaves nothing behind.
    hub.publish(Event::Gone { camera: "yard".into() });
    until("the end of its numbers", || (!metrics.text().contains("\"yard\"")).then_some(())).await;
}
