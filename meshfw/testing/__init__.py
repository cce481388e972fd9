"""The test kit: everything a third party needs to prove a backend, and to count and fake what it touches.

A backend is proven by one class and one fixture (pytest and hypothesis have to be installed)::

    from meshfw.testing.conformance import BackendLaws

    class TestMine(BackendLaws):
        @pytest.fixture
        def make_backend(self, tmp_path):
            return lambda owner: MyBackend(owner, tmp_path)

* ``conformance``: that class, with one test for each law
* ``laws``, ``failure_laws``: the law book itself, functions over a ``lab``
* ``lab``: one backend under test, with what its kernel offers to a witness
* ``rulesets``, ``strategies``: what the laws are tried on, fixed and drawn by hypothesis
* ``wrapping``: backends around a backend that record, interrupt or falsify what it does
* ``mutants``: deliberately broken backends, each with the law that catches it: the test of the law book
* ``counting``: exact counts of processes; ``netns``: network namespaces; ``packets``: what packets meet there

Nothing is imported here, so that each costs only what it needs.
"""
