"""A shop: Flask, Flask-SQLAlchemy, an application factory, the audit trail in a second database."""

from typing import Any

from flask import Flask

from .models import db
from .views import views


def create_app(config: dict[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg://localhost/shop"
    app.config["SQLALCHEMY_BINDS"] = {"audit": "postgresql+psycopg://localhost/shop_audit"}
    app.config.update(config or {})
    db.init_app(app)
    app.register_blueprint(views)
    return app
