"""Celery: a task has a session of its own, which it commits."""

from celery import Celery

from shop import Order, sessions

app = Celery("shop", broker="amqp://broker.example.com")


class Unknown(Exception):
    pass


@app.task
def send(order_id: int) -> None:
    with sessions.begin() as session:
        order = session.get(Order, order_id)
        if order is None:
            raise Unknown(order_id)
        order.is_sent = True


@app.task(bind=True, max_retries=2, default_retry_delay=0, autoretry_for=(Unknown,))
def send_patiently(self: object, order_id: int) -> None:
    send(order_id)
