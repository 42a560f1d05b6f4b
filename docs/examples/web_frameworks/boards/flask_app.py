"""Flask in a single file, with SQLAlchemy(app): the engine is there in an application context only."""

from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select

from boards.models import Base, Note

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg://boards@db.example.com/boards"
db = SQLAlchemy(app, model_class=Base)


@app.get("/notes")
def notes() -> ResponseReturnValue:
    return list(db.session.scalars(select(Note.text).order_by(Note.id)))


@app.post("/notes")
def add() -> ResponseReturnValue:
    db.session.add(Note(text=request.get_json()["text"]))
    db.session.commit()
    return {}, 201
