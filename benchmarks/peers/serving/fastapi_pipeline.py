"""What a user writes from the documentation: FastAPI with `transformers.pipeline`.

Run as `MODEL=FOLDER uvicorn fastapi_pipeline:app --port 8000`.
"""

import os

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classifier = pipeline("text-classification", model=os.environ["MODEL"])


class Asked(BaseModel):
    """One text to classify."""

    text: str


@app.post("/classify")
def classify(asked: Asked) -> dict[str, object]:
    """The best label and its score."""
    return classifier(asked.text, truncation=True)[0]


@app.get("/health")
def health() -> str:
    """Answered once the model is loaded."""
    return "ok"
