from hypothesis import given, settings
from hypothesis import strategies as st
from stock import Article, Base, OutOfStock, engine, move

from dbtestcase import DatabaseTest

amounts = st.integers(-20, 20)


class StockTest(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]
    tea: Article

    @classmethod
    def setUpTestData(cls) -> None:
        cls.tea = Article(name="tea", amount=10)
        cls.session.add(cls.tea)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(amounts, max_size=8))
    def test_there_is_never_less_than_nothing(self, moves: list[int]) -> None:
        there = 10  # in each example
        for amount in moves:
            try:
                there = move("tea", amount)
            except OutOfStock:
                self.assertLess(there + amount, 0)
        self.assertEqual(move("tea", 0), there)

    @settings(max_examples=20, deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), st.integers(1, 20))
    def test_what_came_in_goes_out(self, name: str, amount: int) -> None:
        before = move(name, amount) - amount
        self.assertEqual(move(name, -amount), before)

    def test_sub_tests(self) -> None:
        for amount, left in [(1, 9), (10, 0)]:
            with self.subTest(amount=amount), self.rolled_back():
                self.assertEqual(move("tea", -amount), left)
