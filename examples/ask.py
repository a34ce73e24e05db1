"""Ask a device over MQTT, feature by feature, and tell it the truth afterwards."""

import csv
import json
import sys
import threading
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

host, port, device, model = sys.argv[1:5]
base = f"edgepack/v1/{device}"
answers: dict[str, dict[str, object]] = {}
complete = threading.Event()
with Path("tumour.csv").open(newline="") as handle:
    rows = list(csv.DictReader(handle))[:10]


def receive(_client, _data, message):
    answer = json.loads(message.payload)
    answers[answer["request_id"]] = answer
    if len(answers) == len(rows):
        complete.set()


client = mqtt.Client(CallbackAPIVersion.VERSION2)
client.on_message = receive
client.connect(host, int(port))
client.subscribe(f"{base}/out/prediction/{model}", qos=1)
client.loop_start()
for number, row in enumerate(rows):
    features = {name: float(value) for name, value in row.items() if name != "malignant"}
    request = {**features, "request_id": str(number)}
    client.publish(f"{base}/in/infer/{model}", json.dumps(request), qos=1)
if not complete.wait(20):
    sys.exit(f"device must answer {len(rows)} requests, got {len(answers)} answers")
right = 0
for number, row in enumerate(rows):
    label = answers[str(number)]["label"]
    right += label == row["malignant"]
    truth = {"request_id": str(number), "label": row["malignant"]}
    client.publish(f"{base}/in/truth/{model}", json.dumps(truth), qos=1).wait_for_publish(5)
print(f"{right} of {len(rows)} right; confidence of the first: {answers['0']['confidence']:.3f}")
client.disconnect()
