"""The same command for Typer and for Click."""

import click
import typer
from sqlalchemy import select

from shop import Order, sessions
from shop.tasks import send

app = typer.Typer()


@app.command()
def order(article: str) -> None:
    """Order an article."""
    with sessions.begin() as session:
        session.add(Order(article=article))
    typer.echo(f"ordered: {article}")


@click.command()
@click.option("--dry-run", is_flag=True)
def send_all(dry_run: bool) -> None:
    """Send what is not sent yet."""
    with sessions() as session:
        waiting = list(session.scalars(select(Order.id).where(~Order.is_sent)))
    for order_id in waiting if not dry_run else []:
        send.delay(order_id)
    click.echo(f"{len(waiting)} orders")
