"""The repository commits; no test sees what another one committed."""

from users.models import Base, User
from users.repository import UserNotFound, UserRepository

from dbtestcase import DatabaseTest

NOBODY = 1_000_000


class UserRepositoryTest(DatabaseTest):
    metadata = Base.metadata

    def setUp(self) -> None:
        self.repository = UserRepository(self.session)

    def add_ada(self) -> User:
        return self.repository.create("ada@example.org", "Ada")

    def test_list_empty(self) -> None:
        self.assertEqual(self.repository.list(), [])

    def test_list_with_data(self) -> None:
        self.repository.create("grace@example.org", "Grace")
        self.add_ada()
        self.assertEqual([user.name for user in self.repository.list()], ["Ada", "Grace"])

    def test_get(self) -> None:
        self.assertEqual(self.repository.get(self.add_ada().id).name, "Ada")

    def test_get_not_found(self) -> None:
        with self.assertRaises(UserNotFound):
            self.repository.get(NOBODY)

    def test_delete(self) -> None:
        self.repository.delete(self.add_ada().id)
        self.assertRowCount(User, 0)

    def test_delete_not_found(self) -> None:
        self.add_ada()
        with self.assertRaises(UserNotFound):
            self.repository.delete(NOBODY)
        self.assertRowCount(User, 1)

    def test_create(self) -> None:
        ada = self.add_ada()
        self.assertRowCount(User, 1, User.id == ada.id, User.email == "ada@example.org", User.active)

    def test_update(self) -> None:
        ada = self.add_ada()
        self.repository.update(ada.id, email="countess@example.org", name="Ada King", active=False)
        self.assertRowCount(User, 1, User.email == "countess@example.org", User.name == "Ada King", ~User.active)

    def test_update_not_found(self) -> None:
        with self.assertRaises(UserNotFound):
            self.repository.update(NOBODY, email="ada@example.org", name="Ada", active=True)

    def test_patch(self) -> None:
        self.repository.patch(self.add_ada().id, name="Countess")
        self.assertRowCount(User, 1, User.email == "ada@example.org", User.name == "Countess")

    def test_patch_not_found(self) -> None:
        with self.assertRaises(UserNotFound):
            self.repository.patch(NOBODY, name="Countess")
