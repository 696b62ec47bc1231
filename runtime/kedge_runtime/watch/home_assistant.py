"""Describe a watched stream to Home Assistant by MQTT discovery.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from dataclasses import dataclass
from typing import Any

from kedge_runtime import __version__
from kedge_runtime.output import json_text

PREFIX = "homeassistant"
ONLINE, OFFLINE = "online", "offline"


@dataclass(frozen=True)
class Topics:
    """The topics of a node, all below `kedge/NODE` by default."""

    base: str

    @property
    def answer(self) -> str:
        """The topic of the last answer."""
        return f"{self.base}/answer"

    @property
    def event(self) -> str:
        """The topic of the last event."""
        return f"{self.base}/event"

    @property
    def status(self) -> str:
        """The topic that says whether kedge is connected: `online` or `offline`."""
        return f"{self.base}/status"


# Entity -> what differs: its topic, and how its state is read from the message.
_CONFIDENCE = "{{ (value_json.best.probability * 100) | round(1) }}"
SENSORS: dict[str, dict[str, str]] = {
    "label": {
        "topic": "answer",
        "name": "Label",
        "icon": "mdi:image-search",
        "value_template": "{{ value_json.label or 'unknown' }}",
    },
    "confidence": {
        "topic": "answer",
        "name": "Confidence",
        "icon": "mdi:gauge",
        "unit_of_measurement": "%",
        "state_class": "measurement",
        "value_template": _CONFIDENCE,
    },
    "event": {
        "topic": "event",
        "name": "Last event",
        "icon": "mdi:alert-circle-outline",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.text[:255] }}",
    },
}


def discovery(node: str, topics: Topics) -> dict[str, str]:
    """Return the messages that make Home Assistant show the node: topic -> JSON."""
    device = {
        "identifiers": [f"kedge_{node}"],
        "name": f"kedge {node}",
        "manufacturer": "kedge",
        "sw_version": __version__,
    }
    messages = {}
    for entity, sensor in SENSORS.items():
        facts: dict[str, Any] = dict(sensor)
        topic = getattr(topics, facts.pop("topic"))
        facts |= {
            "unique_id": f"kedge_{node}_{entity}",
            "object_id": f"kedge_{node}_{entity}",
            "state_topic": topic,
            "json_attributes_topic": topic,
            "availability_topic": topics.status,
            "qos": 1,
            "device": device,
        }
        messages[f"{PREFIX}/sensor/kedge_{node}/{entity}/config"] = json_text(facts, indent=None)
    return messages
