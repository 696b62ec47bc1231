"""Classify one image in a process of its own: the plain script, and kedge from Python."""

# What a person writes who knows the model: short side to 256, centre crop, int8 in and out.
BARE = """
import sys
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

model, labels, image, size, covered, divisor, mean, scale, zero = sys.argv[1:]
size, covered = int(size), int(covered)
byte = (np.arange(256, dtype=np.float32) / float(divisor) - float(mean)) / float(scale)
table = np.clip(np.rint(byte) + int(zero), -128, 127).astype(np.int8)
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
with open(image, "rb") as file:
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
height, width = pixels.shape[:2]
by = covered / min(height, width)
pixels = cv2.resize(
    pixels, (round(width * by), round(height * by)), interpolation=cv2.INTER_LINEAR_EXACT
)
top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
tensor = cv2.LUT(np.ascontiguousarray(pixels[top : top + size, left : left + size]), table)
interpreter.set_tensor(taken["index"], tensor[None])
interpreter.invoke()
best = int(interpreter.get_tensor(given["index"])[0].argmax())
with open(labels, encoding="utf-8") as file:
    print(file.read().splitlines()[best])
"""
OPEN = """
import sys
from kedge_runtime import Classifier

print(Classifier.open(sys.argv[1], threads=1)(sys.argv[2]).best.name)
"""
