"""What the guard knows of German, in the form of `english`. Umlauts and ß are written as they are. Pure."""

from headrace.policies.reuse.lexicon import pairs_of, words_of

STOP_WORDS = words_of(
    "der die das den dem des ein eine einen einem einer eines ist sind war waren bin bist sein seid wird werden wurde "
    "wurden worden hat haben hatte hatten habe kann können könnte könnten kannst darf dürfen soll sollte sollten muss "
    "müssen müsste man ich du wir mein meine meinen meinem meiner meines unser unsere unseren unserem mir mich uns "
    "sich es dies diese dieser dieses diesen diesem bitte danke doch mal denn eigentlich genau auch so dann da dort "
    "hier welche welcher welches welchen welchem was wer wie ob irgendwie vielleicht möchte möchten will gerne gern "
    "würde dazu davon dabei weg möglichkeit art weise schritt schritte anleitung prozess verfahren etwas tun lassen "
    "lässt gibt geben gib überhaupt also hallo ok okay hi und zum-beispiel am-besten jemand eigene eigenen"
)

OPTIONAL_WORDS = {
    "": words_of("mensch leute"),
    "who": words_of("person aktuell"),
    "where": words_of("stadt ort"),
    "why": words_of("passieren"),
}

JUDGEMENTS = words_of("gut schlecht gesund gefährlich sicher legal wichtig nötig")

VERBS = words_of("")

JOINERS = frozenset(["und", "oder", "sowie"])

CLAUSE_WORDS = words_of("aber weil obwohl während falls wenn sondern dass damit wo als")

NEGATIONS = words_of("nicht kein keine keinen keinem keiner keines nie niemals nichts niemand ohne außer weder noch")

PREPOSITIONS = {
    **dict.fromkeys(["in", "im", "am", "an", "auf", "bei", "beim", "ins", "innerhalb"], "in"),
    **dict.fromkeys(["zu", "zum", "zur", "nach"], "to"),
    **dict.fromkeys(["von", "vom"], "of"),
    **dict.fromkeys(["mit", "mittels", "per"], "with"),
    **dict.fromkeys(["über", "bezüglich"], "about"),
    **{
        word: word
        for word in words_of("für aus durch um vor seit bis gegen unter zwischen hinter neben ab trotz wegen")
    },
}

#: "zu" before a verb at the end says nothing of a direction: the guard looks at the word that follows.
BEFORE_INFINITIVE: frozenset[str] = frozenset()

#: Separable prefixes: "schalte das Licht ein" is "das Licht einschalten".
PARTICLES = words_of(
    "ein aus an ab auf um zu her vor nach mit weg los zurück fest hoch runter herunter herauf nieder durch an wieder "
    "zusammen um bei dar neu"
)

IRREGULAR = pairs_of(
    "schrieb=schreiben geschrieben=schreiben fand=finden gefunden=finden ging=gehen gegangen=gehen sprach=sprechen "
    "gesprochen=sprechen spricht=sprechen starb=sterben gestorben=sterben stirbt=sterben erfand=erfinden "
    "erfunden=erfinden begann=beginnen begonnen=beginnen fing=anfangen bekam=bekommen erhielt=erhalten wuchs=wachsen "
    "wächst=wachsen las=lesen gelesen=lesen liest=lesen aß=essen gegessen=essen isst=essen trank=trinken "
    "getrunken=trinken gab=geben nahm=nehmen genommen=nehmen nimmt=nehmen half=helfen geholfen=helfen hilft=helfen "
    "kündige=kündigen ändere=ändern ändert=ändern geändert=ändern lade=laden lädt=laden geladen=laden kinder=kind "
    "bücher=buch häuser=haus städte=stadt länder=land größte=größte beste=best besten=best bester=best "
    "gebaut=erstellen hunde=hund katzen=katze vorteile=vorteil nachteile=nachteil unterschiede=unterschied "
    "gründe=grund ursachen=grund tage=tag jahre=jahr monate=monat wochen=woche stunden=stunde minuten=minute "
    "gehört=gehören zurückgesetzt=zurücksetzen eingeschaltet=einschalten ausgeschaltet=ausschalten gelöscht=löschen "
    "installiert=installieren hergestellt=erstellen gemacht=erstellen wiegt=wiegen kostet=kosten lebt=leben "
    "wohnt=wohnen heißt=heißen gegründet=gründung gründen=gründung gründer=gründung gründet=gründung "
    "entdeckt=entdecken geboren=geboren bedeutet=bedeuten"
)

OPPOSITES = """
einschalten ausschalten, anmelden abmelden, öffnen schließen, kaufen verkaufen, erhöhen senken, installieren
deinstallieren, hochladen herunterladen, verschlüsseln entschlüsseln, beginnen enden, vorteil nachteil, groß klein,
schnell langsam, billig teuer, gesund schlecht, gut schlecht, mehr weniger, maximum minimum, höchste niedrigste, größte
kleinste, beste schlechteste, erste letzte, vor nach, mit ohne, links rechts, oben unten, innen außen, heiß kalt, warm
kalt, einfach schwierig, abnehmen zunehmen, einfrieren auftauen, ankommen abfahren, verbinden trennen, import export,
importieren exportieren, gewinn verlust, nord süd, ost west, jung alt, lang kurz, sperren entsperren, erlauben
verbieten, gewinnen verlieren, leihen verleihen, immer nie, positiv negativ, öffentlich privat, aufsteigend absteigend,
tag nacht, männlich weiblich, früh spät, plus minus, sicher gefährlich, legal illegal
"""


ACTIONS = """
einschalten = anschalten, anmachen, aktivieren, aktivierung, anstellen, einschalten
ausschalten = abschalten, ausmachen, deaktivieren, deaktivierung, abstellen; installieren = installation, einrichten,
einrichtung, aufsetzen; deinstallieren = deinstallation; zurücksetzen = resetten, neu setzen, zurücksetzung
löschen = entfernen, beseitigen, löschung, entfernung, loswerden; kündigen = kündigung; stornieren = stornierung
ändern = verändern, änderung, wechseln, anpassen, bearbeiten, abändern; aktualisieren = updaten, aktualisierung,
upgraden; erstellen = anlegen, erzeugen, erstellung, machen, herstellen, bauen, anfertigen, herstellung, zubereiten,
zubereitung; schreiben = verfassen, formulieren; finden = suchen, ausfindig machen; reparieren = beheben, reparatur,
lösen, instand setzen, behebung; kaufen = erwerben, kauf; reinigen = putzen, säubern, reinigung, saubermachen,
sauber machen, waschen; kochen = garen; backen; braten; schneiden; einfrieren; auftauen
herunterladen = downloaden, runterladen; hochladen = uploaden; übersetzen = übersetzung, übertragen
zusammenfassen = zusammenfassung, kurzfassung; erklären = erklärung, erläutern, beschreiben, beschreibung, erläuterung,
definieren, definition; berechnen = ausrechnen, errechnen, berechnung, ermitteln, bestimmen
kontaktieren = kontakt aufnehmen mit, erreichen, in verbindung setzen mit; zurückgeben = zurückschicken, zurücksenden,
retournieren; verfolgen = nachverfolgen; verbessern = verbesserung, steigern, optimieren
prüfen = überprüfen, kontrollieren, checken, überprüfung, nachprüfen; vergleichen = vergleich; lernen = erlernen
verbinden = verbindung, koppeln; trennen; anmelden = einloggen, login, anmeldung; abmelden = ausloggen, logout,
abmeldung; registrieren = registrierung, konto anlegen, konto erstellen, konto eröffnen; umbenennen
neustarten = neu starten, neustart, rebooten; wiederherstellen = wiederherstellung, zurückholen
sichern = sicherung, backup; umrechnen = umwandeln, umrechnung, konvertieren, umwandlung
reservieren = buchen, reservierung, buchung; drucken = ausdrucken; sortieren; speichern = abspeichern
vermeiden = verhindern, vermeidung, vorbeugen; schützen = schutz; teilen; bezahlen = zahlen, bezahlung, zahlung
beantragen = antrag stellen, beantragung; ersetzen = austauschen, auswechseln, tauschen
pflanzen = anpflanzen, einpflanzen; abnehmen = gewicht verlieren; zunehmen; pflegen = pflege; öffnen = aufmachen
schließen = zumachen; entkalken; messen; verschlüsseln = verschlüsselung; entschlüsseln = entschlüsselung; blockieren
erhöhen = vergrößern; senken = verringern, reduzieren, verkleinern; einfügen; kopieren; bewerben; behandeln = behandlung
umtauschen; bildschirmfoto = screenshot, bildschirmaufnahme; sperren; entsperren
"""

CLASSES = """
beginnen = anfangen, starten, beginn, anfang, losgehen; enden = aufhören, ende; bekommen = erhalten, kriegen
verwenden = benutzen, nutzen, gebrauchen, einsetzen; funktionieren = gehen; zeigen = anzeigen
passieren = geschehen, ereignen, vorkommen; brauchen = benötigen, nötig, notwendig, erforderlich; helfen = hilfe
wählen = auswählen, aussuchen; leben = wohnen; sprechen = reden; erfinden = erfindung, erfinder
entdecken = entdeckung, entdecker; sterben = tod; gebären = geboren, geburt; heiraten; besitzen = gehören
bestehen = zusammensetzen; bedeuten = bedeutung, heißen; preis = kosten, kostet; größe = groß; höhe = hoch
gewicht = schwer, wiegen; alter = alt; geschwindigkeit = tempo; temperatur; anzahl = menge; autor = schriftsteller
bevölkerung = einwohner, einwohnerzahl, bevölkerungszahl; hauptstadt; passwort = kennwort, zugangscode
email = e-mail, mail, e-mail-adresse, mailadresse, emailadresse; handy = smartphone, telefon, mobiltelefon
computer = rechner, pc; laptop = notebook; bild = foto, fotografie; film = spielfilm; auto = wagen, pkw; fahrrad = rad
arzt = doktor; anwalt = rechtsanwalt; kind; vater = papa; mutter = mama; oma = großmutter; opa = großvater
arbeit = job, beruf; chef = vorgesetzter; kollege = mitarbeiter; firma = unternehmen, betrieb; kunde
kundenservice = kundendienst, kundensupport, support; wohnung = apartment; haus; urlaub = ferien; müll = abfall
sofa = couch; hose; benzin = sprit; bauch = magen; krankheit = erkrankung; medikament = arznei, arzneimittel, medizin
kühlschrank; gericht = speise; lehrer = lehrkraft; prüfung = examen, klausur; text = textabschnitt
nachricht = mitteilung; vorteil = pluspunkt; nachteil = minuspunkt; unterschied = unterscheiden; beispiel
idee = vorschlag, tipp, ratschlag, rat, empfehlung, vorschlagen, empfehlen; problem = schwierigkeit
fehler = fehlermeldung; grund = ursache; wirkung = auswirkung, effekt, folge, einfluss; ziel = zweck
ergebnis = resultat; ordner = verzeichnis; einstellung; konto = benutzerkonto, account, nutzerkonto
abonnement = abo, mitgliedschaft; paket = sendung; lieferung = versand, zustellung; rechnung; app = anwendung
website = webseite, internetseite, homepage; wlan = wi-fi, wifi, drahtlosnetzwerk
dunkelmodus = dunkler modus, dark mode, nachtmodus; benachrichtigung; land = staat; straße; regel = vorschrift
usa = vereinigte staaten, vereinigten staaten, amerika; großbritannien = vereinigtes königreich; klein = winzig
schnell = rasch, zügig; langsam; einfach = leicht, simpel, unkompliziert; schwierig = kompliziert
wichtig = wesentlich, bedeutend; gut; best = ideal, optimal; schlecht = schädlich, ungesund; gesund; schön = hübsch
billig = günstig, preiswert; teuer = kostspielig; berühmt = bekannt; krank; glücklich = froh; wütend = zornig
müde = erschöpft; kostenlos = gratis, umsonst, kostenfrei; klug = intelligent, schlau; gefährlich = riskant
legal = erlaubt, zulässig; richtig = korrekt; häufig = oft; sofort = umgehend, unverzüglich; nur = lediglich, bloß,
ausschließlich; alle = jede, sämtliche, ganze; viele = zahlreiche; mehr = zusätzlich, weitere; kurz = knapp
gleich = identisch; stichpunkt = aufzählungspunkt; gedicht; gemüse; frühstück; abendessen = abendbrot; funktion
deutschland = bundesrepublik; weltkrieg; kopfschmerzen = kopfweh; fernseher = tv; gehalt = lohn; termin = verabredung
möglich = machbar; satz; fleck; keller; samstag = sonnabend; bahnhof; flughafen; ankommen = ankunft; abfahren = abfahrt
"""


#: Dropped at the beginning of a sentence, again and again.
COURTESY = r"""
(?:hallo|hi|hey|guten (?:tag|morgen|abend)|servus|moin)\b[,!.:]* | (?:bitte|also|ok|okay|danke|entschuldigung
  |verzeihung|sorry|mal)\b[,!.:]*
|(?:(?:kannst|könntest|würdest) du|(?:können|könnten|würden) sie|kann|könnte) (?:mir |uns )?(?:jemand )?(?:bitte[ ]
  |mal |kurz |vielleicht )*
   (?=sagen|erklären|verraten|zeigen|helfen|nennen|beschreiben|erläutern|mitteilen|geben)
|(?:(?:weißt du|wissen sie|weiß jemand)(?: zufällig)?,?) | (?:ich (?:möchte|würde|will|wüsste
  |hätte)(?: gerne?)? (?:wissen|erfahren|verstehen|fragen)(?: gerne?)?,?)
|(?:ich wüsste gerne?,?) | (?:ich frage mich,?) | (?:mich interessiert,?) | (?:meine frage ist[:,]?
  |ich habe eine frage[:,.]?)
|(?:(?:sag|sage|sagen sie|verrate|verraten sie|erzähl|erzähle|teile?n? sie) (?:mir|uns)(?: bitte| mal| doch)*,?)
|(?:sagen,?|verraten,?|mitteilen,?)
"""

#: Dropped at the end of a sentence.
FAREWELL = r""",?\s*\b(?:bitte|danke|vielen dank|danke schön|danke im voraus|wenn möglich|für mich)"""

#: What stands for a part of many patterns.
PARTS = {
    "who": r"(?:ich|man|wir|du|sie|jemand)",
    "way": r"(?:weg|möglichkeit|methode|art|weise|vorgehensweise|schritte?|anleitung|verfahren)",
}

FRAMES = r"""
how-to: (?:gib mir |ich brauche |ich suche |was ist )?(?:ein |das )?(?:gutes |einfaches )?rezept (?:für|von)\b => machen
when-time: wie spät ist es\b|wie ?viel uhr ist es\b
how-to: wie (?:genau )?(?:kann|könnte|soll|sollte|muss|darf|können|müssen|sollten|würde) <who>(?: am besten)?\b
how-to: wie (?:lässt|lassen) (?:sich|man)\b
how-to: was (?:muss|soll|sollte|kann) <who> (?:tun|machen|unternehmen),? um\b
how-to: (?:was ist|welches ist|gibt es) (?:der|die|das|eine|einen|den)? ?(?:beste |besten |einfachste[ ]
  |richtige )?<way>,? (?:um)?\b
how-to: (?:welche|was sind die) schritte (?:sind nötig|sind notwendig|muss ich befolgen|braucht es)?,? ?(?:um|zum
  |zur)?\b
how-to: auf welche(?:m)? (?:weise|weg|art)(?: und weise)? (?:kann|könnte) <who>\b
how-to: (?:erklär|erkläre|erklären sie|zeig|zeige|zeigen sie|beschreib|beschreibe)(?: mir
  | uns)?(?: bitte)?,? wie <who>\b
how-to: (?:zeigen|erklären|beschreiben|helfen),? wie <who>\b
how-to: (?:hilf|helfen sie) mir(?: bitte)?(?: dabei)?,?
how-to: ich brauche hilfe (?:beim|bei|mit)\b
how-to: ich (?:möchte|will|würde gerne?|muss)\b
how-to: (?:gib mir )?(?:eine )?(?:kurze )?anleitung (?:zum|zur|für|um)\b
how-to: wie (\w+) <who>\b => \1
# Sizes and amounts.
what: wie viele (?:menschen|einwohner|leute|personen) (?:leben|wohnen|gibt es) in\b => bevölkerung von
what: wie viele einwohner hat\b => bevölkerung von
what: wie alt (?:ist|sind|war|wurde)\b => alter von
what: wie hoch (?:ist|sind|war) (?:der|die) (?=preis|kosten)
what: wie hoch (?:ist|sind|war)\b => höhe von
what: wie groß (?:ist|sind|war)\b => größe von
what: wie schwer (?:ist|sind|war)\b => gewicht von
what: wie viel wiegt\b|wieviel wiegt\b => gewicht von
what: wie schnell (?:ist|sind|fährt|läuft)\b => geschwindigkeit von
what: wie weit ist es von\b => entfernung von
what: (?:was|wie ?viel) kostet(?: es| mich)?(?: ein| eine| einen)?\b => preis von
what: (?:was|wie ?viel) kosten\b => preis von
what: wie teuer (?:ist|sind|war)\b => preis von
what: wie (?:lange|viel zeit) (?:dauert es|braucht es|braucht man|brauche ich|benötigt man|dauert)(?:,? bis
  |,? um)?\b => dauer von
what: wie lange (?:muss|müssen|soll|sollte|sollten|kann|darf|hat|ist) ?(?:<who>)?\b => dauer von
what: wie (?:oft|häufig) (?:muss|soll|sollte|kann|darf|sollten|müssen)(?: <who>)?\b => häufigkeit von
how-many: wie ?viele\b
how-many: (?:was ist|wie hoch ist|wie groß ist) die (?:an)?zahl (?:der|an|von)\b
how-many: welche anzahl\b
how-much: wie ?viel\b
# Why, when, where, who.
why: (?:erkläre?(?: mir)?,? )?(?:warum|weshalb|wieso)\b
why: aus welche[mn] gr[uü]nd(?:en)?\b
why: (?:was ist|was sind|was war|was waren|welches sind|nenne)(?: mir)? (?:der|die|den|das) (?:grund|gründe
  |ursachen?)(?: dafür)?,? ?(?:dass|für|warum|von|des|der)?\b
why: wie kommt es,? dass|woran liegt es,? dass|was (?:verursacht|führt zu)\b
when-year: (?:in welchem|seit welchem) jahr\b
when-time: um (?:wie ?viel uhr|welche uhrzeit)\b|zu welcher (?:uhr)?zeit\b
when-day: an welchem (?:tag|datum)\b
since-when: seit wann\b
until-when: bis wann\b
when: wann\b
where: an welchem ort\b|wo\b
where-to: wohin\b
where-from: woher\b
where: in welche[rm] (?=stadt|land|bundesland)
who: welche person\b|wer\b
whom: wen\b
to-whom: wem\b
whose: wessen\b
name: wie (?:heißt|lautet|heißen|ist) (?:der|die|das) namen? (?:der|des|von)\b
name: wie (?:heißt|heißen)\b
how: wie (?:lautet|lauten|ist|sind)\b
how: wie\b
how: (?:erkläre?(?: mir)?,? )?wie\b
# Yes or no.
whether: (?:ist es|stimmt es|trifft es)(?: wahr| richtig| zu)?,? dass\b
whether: ob\b
whether-can: (?:kann|könnte|können|darf|dürfen|könnten|dürfte)(?: <who>)?\b
whether-can: ist es (?:möglich|erlaubt|in ordnung|okay|gestattet),?\b
whether-should: (?:soll|sollte|sollten)(?: <who>)?\b
whether-should: ist es (?:ratsam|sinnvoll|empfehlenswert),?\b
whether-must: (?:muss|müssen)(?: <who>)?\b|ist es (?:nötig|notwendig|erforderlich),?\b
whether: (?:ist|sind|war|waren|hat|haben|wird|werden|gibt es|habe|bin)\b
# What.
do: (?:schreib|schreibe|verfasse|erstelle|erstell|generiere|formuliere|schreiben|erstellen)(?: sie)?(?: mir
  | uns)?(?: bitte)?(?: eine?n?)?\b(?! um\b)
what: (?:berechne|berechnen sie|rechne aus)\b
what: was (?:bedeutet|bedeuten|heißt|versteht man unter|ist mit|meint man mit|besagt)\b
what: was ist (?:die )?(?:bedeutung|definition) (?:von|des|der)\b
explain: (?:erklär|erkläre|erklären sie|erläutere?|definiere|beschreibe?|erklären|beschreiben|erläutern)(?: mir
  | uns)?(?: bitte| kurz| mal)*,?(?: was)?(?: (?:den begriff|das konzept))?\b
what: (?:nenne|nenn|nennen sie|liste|zähle|gib|geben sie|zeige|zeig|nennen|geben|zeigen)(?: mir| uns)?(?: bitte)?\b
what: (?:was|welche[rsnm]?|woraus|womit|wofür)\b(?: (?:ist|sind|war|waren)\b)?
"""
