"""SQLModel's tables are in its own metadata; its engine is a SQLAlchemy engine."""

from heroes import services
from heroes.models import Hero, Team
from sqlmodel import Session, SQLModel, col

from dbtestcase import DatabaseTest


class HeroesTest(DatabaseTest):
    metadata = SQLModel.metadata
    engines = [services.engine]
    session_class = Session  # with exec()
    team: Team

    @classmethod
    def setUpTestData(cls) -> None:
        cls.team = Team(name="Preventers")
        cls.session.add_all([cls.team, Hero(name="Deadpond", team=cls.team)])

    def test_a_hero_joins_a_team(self) -> None:
        services.recruit("Rusty-Man", "Preventers", age=48)
        self.assertEqual(services.members("Preventers"), ["Deadpond", "Rusty-Man"])
        self.assertRowCount(Team, 1)

    def test_a_new_team_is_made(self) -> None:
        services.recruit("Spider-Boy", "Z-Force")
        self.assertRowCount(Team, 2)

    def test_heroes_outlive_their_team(self) -> None:
        services.dissolve("Preventers")
        self.assertRowCount(Hero, 1, col(Hero.team_id).is_(None))

    def test_no_test_sees_the_changes_of_another(self) -> None:
        self.assertEqual(services.members("Preventers"), ["Deadpond"])
        self.assertEqual([hero.name for hero in self.team.heroes], ["Deadpond"])
