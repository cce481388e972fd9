"""The test kit: everything a third party needs to prove a backend, and to count and fake what it touches.

A backend is proven by one class and one fixture (pytest and hypothesis have to be installed)::

    from meshfw.testing.conformance import BackendLaws

    class TestMine(BackendLaws):
        @pytest.fixture
        def make_backend(self, tmp_path):
            return lambda owner: MyBackend(owner, tmp_path)

That narrows nothing but what needs more than instances of the backend: rules of others, packets, counters, a dump of
the kernel as a witness, tampering by the kernel's own means. Each is one more fixture, and
``meshfw.testing.book.report(lab)`` is the list of laws with what narrows each.

``README.md`` beside this module is the manual: what narrows a law, the report, and which names stay as they are.

* ``conformance``: that class, with one test for each law; ``sources``: the same for rule sources, over ``source_laws``
* ``reporting``: what pytest's option ``--meshfw-report`` writes; ``fixtures``: what its ``-p`` takes in
* ``book``: all laws, the cases they are tried on, and the report; ``laws``, ``drift_laws``, ``packet_laws`` and
  ``failure_laws`` hold them
* ``coverage``: which laws a backend's capabilities narrow, and why
* ``lab``: one backend under test, with what its kernel offers to a witness; what a law is
* ``rulesets``, ``edits``, ``strategies``: what laws are tried on, fixed and drawn by hypothesis
* ``wrapping``: backends around a backend that record, interrupt or falsify what it does
* ``mutants``: broken backends, each with the law that catches it (``broken_writers``, ``broken_readers``)
* ``judge``: random rulesets under every backend, and translations, judged by packets through three namespaces
  (``topology``, ``wire``)
* ``loopback``: whether packets come through; ``counting``: exact counts of processes; ``netns``: network namespaces

Nothing is imported here, so that each costs only what it needs.
"""
