"""LitServe with batching around the PyTorch model, after its documentation.

Run as `MODEL=FOLDER python litserve_torch.py PORT`.
"""

import os
import sys

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class TextClassifier(litserve.LitAPI):
    """Pads what is waiting to its longest text and answers it in one forward pass."""

    def setup(self, device):
        self.tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
        self.model = AutoModelForSequenceClassification.from_pretrained(os.environ["MODEL"]).to(device).eval()

    def decode_request(self, request):
        return request["text"]

    def predict(self, texts):
        batch = self.tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
        with torch.inference_mode():
            scores = self.model(**batch).logits.softmax(dim=-1)
        best = scores.argmax(dim=-1).tolist()
        names = self.model.config.id2label
        return [{"label": names[place], "score": float(row[place])} for place, row in zip(best, scores, strict=True)]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = TextClassifier(max_batch_size=32, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
